"""Names of the contrastive losses (``loss_config.loss_name``), and what each works on."""

from __future__ import annotations

from dataclasses import dataclass

_PAIRS = ("videos", "subtitles")
_WITH_CAPTIONS = (*_PAIRS, "captions")
_WITH_IMAGES = (*_WITH_CAPTIONS, "images")


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """Inputs of one loss; `losses.LOSSES` has its function."""

    features: tuple[str, ...] = _PAIRS
    """Fields of `losses.GlobalFeatures` that it needs."""
    trained_temperature: bool = True
    """Whether it takes the model's temperature, which otherwise gets no gradient."""
    parameters: tuple[str, ...] = ()
    """Further keys of ``loss_config``, all of them required."""
    can_exclude: bool = False
    """Whether pairs can be excluded from the negatives."""


LOSS_SPECS = {
    # Of pairs of a video and a text.
    "NCEContrastiveLoss": LossSpec(
        trained_temperature=False, parameters=("temp",), can_exclude=True
    ),
    "NCELearnableTempLoss": LossSpec(can_exclude=True),
    "NCELearnableTempDSLLoss": LossSpec(can_exclude=True),
    "TripletContrastiveLoss": LossSpec(
        trained_temperature=False,
        parameters=("margin", "measure", "max_violation"),
        can_exclude=True,
    ),
    "HardNegLoss": LossSpec(
        trained_temperature=False, parameters=("hard_negative_num",), can_exclude=True
    ),
    "MILNCEContrastiveLoss": LossSpec(trained_temperature=False, parameters=("temp",)),
    # With captions of the videos' middle frames.
    "NCELearnableTempLoss_vs_vc": LossSpec(features=_WITH_CAPTIONS),
    "NCELearnableTempLoss_vsc": LossSpec(features=_WITH_CAPTIONS),
    # With the frames too.
    "VidImgNCELearnableTempLoss": LossSpec(features=_WITH_IMAGES),
    "VidImgDivideNCELearnableTempLoss": LossSpec(features=_WITH_IMAGES),
    "NCELearnableTempLoss_vs_vc_fc": LossSpec(features=_WITH_IMAGES),
    "NCELearnableTempLoss_vsc_fc": LossSpec(features=_WITH_IMAGES),
}
"""Name of the original's class -> its inputs."""

RETRIEVAL_LOSSES = tuple(name for name, spec in LOSS_SPECS.items() if spec.features == _PAIRS)
"""Names of the losses of pairs alone."""
