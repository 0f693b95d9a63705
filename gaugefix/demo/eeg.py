"""Four channels of an electroencephalogram, which Matplotlib brings along for its examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from gaugefix.demo.extras import require
from gaugefix.demo.in_memory import InMemoryData, check_count

CHANNELS = 4


class EEGData(InMemoryData):
    """Windows of the past, (past · 4,), and the samples that follow each, (horizon, 4).

    800 samples of 4 channels, standardised by the training part. They are read from the installed Matplotlib
    (``sample_data/eeg.dat``, under Matplotlib's licence); nothing is downloaded, and gaugefix holds no copy. The end of
    the series is for validation, and no window reaches from one part into the other.

    Args:
        batch_size: windows per training batch.
        past: samples that a forecast is made from.
        horizon: samples to forecast.
        val_fraction: part of the series, at its end, that is kept for validation.

    Attributes:
        facts: what belongs into the summary of a run: name and length of the series, and Matplotlib's version.
    """

    method_prefix = "eeg_"

    def __init__(self, batch_size: int = 64, past: int = 8, horizon: int = 4, val_fraction: float = 0.2) -> None:
        super().__init__(batch_size, val_fraction)
        check_count("past", past, 8)
        check_count("horizon", horizon, 4)
        self.past, self.horizon = past, horizon
        self.facts: dict[str, Any] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read the series and cut it into windows."""
        if self.train_data is not None:
            return
        matplotlib = require("matplotlib", "the EEG data")
        series = read_eeg()
        self.facts = {"series": "eeg.dat", "samples": len(series), "matplotlib": matplotlib.__version__}
        cut = len(series) - round(self.val_fraction * len(series))
        series = (series - series[:cut].mean(0)) / series[:cut].std(0)
        self.train_data = self._windows(series[:cut])
        self.val_data = self._windows(series[cut:])

    def _windows(self, series: Tensor) -> TensorDataset:
        length = self.past + self.horizon
        if len(series) < length:
            raise ValueError(
                f"Expected past + horizon no longer than each part of the series, got {length} for a part of "
                f"{len(series)} samples. Give a smaller past, a smaller horizon or a larger part."
            )
        windows = series.unfold(0, length, 1).mT  # (windows, time, channels)
        return TensorDataset(windows[:, : self.past].flatten(1), windows[:, self.past :].contiguous())


def read_eeg() -> Tensor:
    """Return the series, (800, 4), float32.

    Raises:
        MissingExtraError: Matplotlib is not installed.
        FileNotFoundError: it is, but without its sample data.
    """
    require("matplotlib", "the EEG data")
    from matplotlib.cbook import get_sample_data

    try:
        raw = np.fromfile(get_sample_data("eeg.dat", asfileobj=False), dtype="<f8")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Expected Matplotlib's sample data for the EEG data, got none at '{error.filename}'. Some distributions "
            "leave them out: install Matplotlib by pip, or choose --data=DigitsData or --data=SpiralData."
        ) from error
    return torch.from_numpy(raw.reshape(-1, CHANNELS).astype(np.float32))
