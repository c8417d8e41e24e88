"""Retrieval metrics with and without dual softmax against CLIP-ViP's, where they are present."""

from __future__ import annotations

import numpy as np
import pytest

from alpro.tasks.retrieval.metrics import dual_softmax, dual_softmax_metrics, retrieval_metrics
from tests.shared_data import shared_data

_SHARED = shared_data()


@pytest.mark.skipif(_SHARED is None, reason="the golden numbers are absent")
def test_retrieval_metrics_agree_with_clip_vip() -> None:
    assert _SHARED is not None
    with np.load(_SHARED / "golden/clipvip_eval_a.npz") as arrays:
        cosine, expected = arrays["sim_text_by_video"], arrays["dsl_text_by_video"]
        simple, dsl = arrays["metrics_simple"].tolist(), arrays["metrics_dsl"].tolist()
    np.testing.assert_allclose(dual_softmax(cosine, axis=0), expected, rtol=1e-5, atol=1e-7)
    pairs = range(len(cosine))
    ours = retrieval_metrics(cosine, pairs)
    recalls = [[row[key] / 100 for key in ("r1", "r5", "r10")] for row in ours.values()]
    assert recalls == [pytest.approx(simple[:3]), pytest.approx(simple[5:8])]
    assert [row["meanR"] for row in ours.values()] == pytest.approx([simple[4], simple[9]])
    # The original's video-to-text numbers are those without DSL: it normalises over texts alone.
    transductive = dual_softmax_metrics(cosine, pairs)["text2video"]
    assert [transductive[key] / 100 for key in ("r1", "r5", "r10")] == pytest.approx(dsl[:3])
    assert transductive["meanR"] == pytest.approx(dsl[4])
