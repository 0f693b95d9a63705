import hashlib
import platform
from pydoc_data.topics import topics

import pytest
import torch

from gaugefix.demo.corpus import LETTERS, UNKNOWN, VOCABULARY, CorpusData, decode, encode

TEXT = "".join(topics[name] for name in sorted(topics))


def ready(**settings) -> CorpusData:
    data = CorpusData(**settings)
    data.setup("fit")
    return data


def order_of(data: CorpusData) -> torch.Tensor:
    return torch.cat([x for x, _ in data.train_dataloader()])


def test_text_survives_the_numbers_but_for_rare_characters():
    assert decode(encode(TEXT)) == "".join(letter if letter in LETTERS else UNKNOWN for letter in TEXT)
    assert decode(encode("a…b\t")) == f"a{UNKNOWN}b{UNKNOWN}"
    assert sorted(encode(LETTERS + UNKNOWN).tolist()) == list(range(VOCABULARY))


def test_parts_are_the_beginning_and_the_end_of_the_text():
    data = ready(context=50, val_fraction=0.1)
    train, val = data.train_data.tensors[0].flatten(), data.val_data.tensors[0].flatten()
    cut = len(TEXT) - round(0.1 * len(TEXT))
    assert torch.equal(train, encode(TEXT[: len(train)]))
    assert torch.equal(val, encode(TEXT[cut : cut + len(val)]))
    assert cut - 50 <= len(train) < cut
    assert len(TEXT) - cut - 50 <= len(val) < len(TEXT) - cut


def test_targets_are_the_characters_that_follow():
    data = ready(context=7)
    for part in (data.train_data, data.val_data):
        inputs, targets = (tensor.flatten() for tensor in part.tensors)
        assert torch.equal(inputs[1:], targets[:-1])


def test_order_depends_on_the_seed_of_the_run_and_not_on_other_draws():
    torch.manual_seed(3)
    first = order_of(ready())
    torch.manual_seed(3)
    data = ready()
    torch.rand(5)  # what a callback may do
    assert torch.equal(first, order_of(data))
    torch.manual_seed(4)
    assert not torch.equal(first, order_of(ready()))


def test_batches_have_the_shape_asked_for():
    data = ready(batch_size=5, context=9, val_batch_size=11)
    batches = [x for x, _ in data.train_dataloader()]
    assert {tuple(x.shape) for x in batches} == {(5, 9)}
    assert len(batches) == len(data.train_data) // 5
    sizes = [len(x) for x, _ in data.val_dataloader()]
    assert sum(sizes) == len(data.val_data)
    assert set(sizes[:-1]) == {11}


def test_facts_identify_the_text():
    facts = ready().facts
    assert facts["corpus_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert (facts["corpus_characters"], facts["python"]) == (len(TEXT), platform.python_version())


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"context": 0}, {"val_batch_size": -1}, {"val_fraction": 0.0}])
def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match=f"^Expected .* for {next(iter(settings))}, got .* is usual\\.$"):
        CorpusData(**settings)


def test_a_context_longer_than_a_part_is_refused():
    with pytest.raises(ValueError, match=r"for context, got 10000000 .* Give a smaller context or a larger part\.$"):
        ready(context=10_000_000)


def test_dataloader_before_setup_is_refused():
    with pytest.raises(RuntimeError, match=r"Call setup\(\) first\.$"):
        CorpusData().train_dataloader()
