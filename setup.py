"""The package `alpro`: what it needs, in ranges. The exact versions to install are in `env/`."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
RESOURCES = ("config_release", "ext/bert-base-uncased", "ext/clip-bpe", "ext/demo-tokenizer")
# Each range begins at the release in env/oldest.txt. PyTorch before 2.8 may hang at the end of a
# Gloo job, and PyAV before 18 scales frames in as many threads as there are cores.
REQUIREMENTS = [
    "torch>=2.8,<3",
    "torchvision>=0.23",
    "transformers>=4.50,<6",
    "numpy>=1.26.4,<3",
    "tqdm>=4.66",
    "av>=18",
    "jinja2>=3.1",
]
EXTRAS = {
    # Each is imported only when it is used.
    "decord": ["decord>=0.6.0"],
    "lmdb": ["lmdb>=3"],
    "torchcodec": ["torchcodec>=0.13"],  # needs FFmpeg's libraries, and the release for the PyTorch
    "tensorboard": ["tensorboard>=2.18"],
    "ujson": ["ujson>=5.10"],
    "tables": ["pyarrow>=18"],
    "entities": ["hanta>=1.2.1"],
    "usearch": ["usearch>=2.16"],
    "serve": ["starlette>=0.40", "uvicorn>=0.30", "pillow>=11"],
    "images": ["pillow>=11", "fontpkg-noto-sans>=2.15"],
    "demo": ["pillow>=11", "fontpkg-noto-sans>=2.15"],
    # Does not build by itself with a current PyTorch: env/horovod_build/build.sh builds it.
    "horovod": ["horovod>=0.28.1"],
    "dev": [
        "ipykernel>=6.29",
        "mkdocs-material>=9.6",
        "mkdocstrings[python]>=0.29",
        "mypy>=2.4",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "pandas>=2.2",
        "pytest>=9",
        "axe-playwright-python>=0.1.8",
        "httpx>=0.27",
        "playwright>=1.65",
        "pytest-xdist>=3.8",
        "ruff>=0.17",
    ],
}

INIT = (ROOT / "src/alpro/__init__.py").read_text()
VERSION = re.findall(r'^__version__ = "(.+)"$', INIT, re.MULTILINE)[0]
README = ROOT / "README.md"


class BuildWithResources(build_py):
    """Copies configs and vocabularies into the package, for use without a checkout."""

    def run(self) -> None:
        """Build the package."""
        super().run()
        if self.editable_mode:
            return
        for folder in RESOURCES:
            target = Path(self.build_lib, "alpro/resources", folder)
            shutil.copytree(ROOT / folder, target, dirs_exist_ok=True)


setup(
    name="alpro",
    version=VERSION,
    description="Video-and-language training: ALPRO (CVPR 2022), reimplemented",
    long_description=README.read_text() if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The project's contributors",
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    package_dir={"": "src"},
    packages=find_packages("src", include=("alpro", "alpro.*")),
    package_data={
        "alpro": ["*.pyi"],
        "alpro.commands.gallery": ["templates/*"],
        "alpro.search.server": ["templates/*", "static/*"],
    },
    cmdclass={"build_py": BuildWithResources},
    entry_points={"console_scripts": ["alpro=alpro.commands.main:run"]},
    python_requires=">=3.11",
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
)
