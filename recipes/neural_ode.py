"""Neural ODEs on digits, a spiral or an EEG: baseline, kinetic penalty, or time or state gauge-fixed.

python recipes/neural_ode.py fit --config configs/neural_ode/equidistribution.yaml --model.solver_steps 4

Results go to runs/neural_ode/<time>-<method>-s<seed>/; the path is the last line printed.
"""

from typing import Any

from lightning.pytorch import Callback, LightningDataModule

from gaugefix.demo.digits import DigitsData
from gaugefix.demo.eeg import EEGData
from gaugefix.demo.neural_ode import NeuralODE
from gaugefix.demo.ode_classifier import ODEClassifier
from gaugefix.demo.ode_forecaster import ODEForecaster
from gaugefix.demo.recipe_cli import RecipeCLI
from gaugefix.demo.spiral import SpiralData
from gaugefix.demo.time_grid import TimeGrid
from gaugefix.demo.trajectories import draw_trajectories

# Imported, so that a configuration can call them by their short names.
CHOICES = (ODEClassifier, ODEForecaster, DigitsData, SpiralData, EEGData, TimeGrid)
DRAWN = 60  # held-out inputs whose paths are drawn
PICTURE = "trajectories.png"


class NeuralODECLI(RecipeCLI):
    """Names the method after what fixes the gauge, and draws the trajectories at the end."""

    def parts(self, callbacks: list[Callback]) -> list[str]:
        """Return the names that the method's name is made of."""
        clocks = [callback.slice for callback in callbacks if isinstance(callback, TimeGrid)]
        names = super().parts(callbacks)
        before = names.index("kinetic") if "kinetic" in names else len(names)
        return names[:before] + clocks + names[before:]

    def prefix(self) -> str:
        """Return what stands before the method's name: which data."""
        return getattr(self.datamodule, "method_prefix", "") + super().prefix()

    def strengths(self, callbacks: list[Callback]) -> dict[str, float]:
        """Return the strength of each regularizer, by name."""
        return super().strengths(callbacks) | ({"kinetic": self.model.kinetic} if self.model.kinetic else {})

    def settings(self, callbacks: list[Callback]) -> dict[str, Any]:
        """Return what is run as flat keys."""
        settings = super().settings(callbacks)
        settings["data"] = type(self.datamodule).__name__
        settings["time_slice"] = next((c.slice for c in callbacks if isinstance(c, TimeGrid)), None)
        return settings

    def comment(self) -> None:
        """Print what the solver did, and draw where the inputs flow."""
        print("\n" + ", ".join(f"{name} {value:.3g}" for name, value in self.model.headline.items()))
        if self._get(self.config, "picture"):
            u, targets = (values[:DRAWN] for values in self.datamodule.val_data.tensors)
            labels = None if targets.is_floating_point() else targets
            title = f"{self.directory.name}: {len(u)} held-out inputs"
            print(f"Trajectories: {draw_trajectories(self.model.net, u, labels, self.directory / PICTURE, title)}")


def main(args: list[str] | None = None) -> RecipeCLI:
    """Run the command line."""
    return NeuralODECLI("neural_ode", NeuralODE, LightningDataModule, args, subclass_mode_data=True)


if __name__ == "__main__":
    main()
