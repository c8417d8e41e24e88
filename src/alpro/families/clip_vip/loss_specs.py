"""Names of the contrastive losses (``loss_config.loss_name``), and what each takes."""

from __future__ import annotations

from dataclasses import dataclass

_PAIRS = ("videos", "subtitles")
_CAPTIONS = (*_PAIRS, "captions")
_IMAGES = (*_CAPTIONS, "images")


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """Inputs of a function of `losses.LOSSES`."""

    features: tuple[str, ...] = _PAIRS
    """Fields of `losses.GlobalFeatures` that it needs."""
    trained_temperature: bool = True
    """Whether it takes the model's temperature, which otherwise gets no gradient."""
    parameters: tuple[str, ...] = ()
    """Further keys of ``loss_config``, all of them required."""
    can_exclude: bool = False
    """Whether pairs can be excluded from the negatives."""


_TRIPLET = ("margin", "measure", "max_violation")
LOSS_SPECS = {
    "NCEContrastiveLoss": LossSpec(
        trained_temperature=False, parameters=("temp",), can_exclude=True
    ),
    "NCELearnableTempLoss": LossSpec(can_exclude=True),
    "NCELearnableTempDSLLoss": LossSpec(),
    "TripletContrastiveLoss": LossSpec(trained_temperature=False, parameters=_TRIPLET),
    "HardNegLoss": LossSpec(trained_temperature=False, parameters=("hard_negative_num",)),
    "MILNCEContrastiveLoss": LossSpec(trained_temperature=False, parameters=("temp",)),
    "NCELearnableTempLoss_vs_vc": LossSpec(features=_CAPTIONS),
    "NCELearnableTempLoss_vsc": LossSpec(features=_CAPTIONS),
    "VidImgNCELearnableTempLoss": LossSpec(features=_IMAGES),
    "VidImgDivideNCELearnableTempLoss": LossSpec(features=_IMAGES),
    "NCELearnableTempLoss_vs_vc_fc": LossSpec(features=_IMAGES),
    "NCELearnableTempLoss_vsc_fc": LossSpec(features=_IMAGES),
}
"""Name of the original's class -> its inputs."""
RETRIEVAL_LOSSES = tuple(name for name, spec in LOSS_SPECS.items() if spec.features == _PAIRS)
