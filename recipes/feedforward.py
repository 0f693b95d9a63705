"""Digits with a multilayer perceptron or a residual CNN: baseline, weight decay, or gauge fixed to a slice.

python recipes/feedforward.py fit --config configs/feedforward/minimal_norm.yaml --model.lr 0.03

Results go to runs/feedforward/<time>-<method>-s<seed>/; the path is the last line printed.
"""

from gaugefix.demo.classifier import Classifier
from gaugefix.demo.digits import DigitsData
from gaugefix.demo.mlp import MLP
from gaugefix.demo.recipe_cli import RecipeCLI
from gaugefix.demo.residual_cnn import ResidualCNN

MODELS = (MLP, ResidualCNN)  # imported, so that a configuration can call them by their short names


def main(args: list[str] | None = None) -> RecipeCLI:
    """Run the command line."""
    return RecipeCLI("feedforward", Classifier, DigitsData, args)


if __name__ == "__main__":
    main()
