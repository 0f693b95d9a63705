"""Digits with a multilayer perceptron or a residual CNN: baseline, weight decay, or gauge fixed to a slice.

python recipes/feedforward.py fit --config configs/feedforward/minimal_norm.yaml --model.lr 0.03

Results go to runs/feedforward/<time>-<method>-s<seed>/; the path is the last line printed.
"""

from gaugefix.callbacks import NoetherCharges
from gaugefix.demo.charges import draw_charges
from gaugefix.demo.classifier import Classifier
from gaugefix.demo.digits import DigitsData
from gaugefix.demo.mlp import MLP
from gaugefix.demo.recipe_cli import RecipeCLI
from gaugefix.demo.residual_cnn import ResidualCNN

MODELS = (MLP, ResidualCNN)  # imported, so that a configuration can call them by their short names
PICTURE = "charges.png"


class FeedforwardCLI(RecipeCLI):
    """Draws the Noether charges at the end, if they were measured."""

    def comment(self) -> None:
        """Draw measured and predicted charges."""
        if self._get(self.config, "picture") and any(isinstance(c, NoetherCharges) for c in self.trainer.callbacks):
            title = f"{self.directory.name}: Noether charges"
            print(f"\nCharges: {draw_charges(self.directory, self.directory / PICTURE, title)}")


def main(args: list[str] | None = None) -> RecipeCLI:
    """Run the command line."""
    return FeedforwardCLI("feedforward", Classifier, DigitsData, args)


if __name__ == "__main__":
    main()
