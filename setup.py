"""The package `src`: what it needs, in ranges. The exact versions to install are in `env/`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Each range begins at the oldest release that the code was run with.
REQUIREMENTS = [
    "torch>=2.11,<3",
    "torchvision>=0.26",
    "transformers>=5.17,<6",
    "numpy>=2.0,<3",
    "tqdm>=4.66",
    "av>=14",
]
EXTRAS = {
    # Each is imported only when it is used.
    "decord": ["decord>=0.6.0"],
    "lmdb": ["lmdb>=3"],
    "torchcodec": ["torchcodec>=0.13"],  # needs FFmpeg's libraries, and the release for the PyTorch
    "tensorboard": ["tensorboard>=2.18"],
    "ujson": ["ujson>=5.10"],
    "tables": ["pyarrow>=18"],
    "entities": ["hanta>=1.2"],
    "images": ["pillow>=11", "fontpkg-noto-sans>=2.15"],
    "demo": ["pillow>=11", "fontpkg-noto-sans>=2.15"],
    # Does not build by itself with a current PyTorch: env/horovod_build/build.sh builds it.
    "horovod": ["horovod>=0.28.1"],
    "dev": ["mypy>=2.4", "pandas>=3.1", "pytest>=9", "pytest-xdist>=3.8", "ruff>=0.17"],
}

INIT = (ROOT / "src/__init__.py").read_text()
VERSION = re.findall(r'^__version__ = "(.+)"$', INIT, re.MULTILINE)[0]
README = ROOT / "README.md"

setup(
    name="alpro",
    version=VERSION,
    description="Video-and-language training: ALPRO (CVPR 2022), reimplemented",
    long_description=README.read_text() if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The project's contributors",
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    packages=find_packages(include=("src", "src.*")),
    python_requires=">=3.11",
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
)
