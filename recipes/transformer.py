"""A causal character model on Python's own reference: baseline, weight decay, or gauge fixed to a slice.

python recipes/transformer.py fit --config configs/transformer/minimal_norm.yaml --model.architecture layernorm

Results go to runs/transformer/<time>-<method>-s<seed>/; the path is the last line printed.
"""

from lightning.pytorch.cli import LightningArgumentParser

from gaugefix.demo.corpus import CorpusData
from gaugefix.demo.language_model import LanguageModel
from gaugefix.demo.recipe_cli import RecipeCLI


class TransformerCLI(RecipeCLI):
    """Gives the model the context of the data, and lets it write a few lines at the end."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--sample", type=int, default=300, help="Characters to write at the end; 0 for none.")
        parser.add_argument("--prompt", type=str, default="The ", help="What they begin with.")
        parser.link_arguments("data.context", "model.init_args.context")

    def comment(self) -> None:
        """Print a sample."""
        if length := self._get(self.config, "sample"):
            print(f"\n{self.model.sample(self._get(self.config, 'prompt'), length)}\n")


def main(args: list[str] | None = None) -> RecipeCLI:
    """Run the command line."""
    return TransformerCLI("transformer", LanguageModel, CorpusData, args)


if __name__ == "__main__":
    main()
