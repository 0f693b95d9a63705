"""Terms, slices and charges of shards on two processes, against those of whole parameters."""

import torch
from torch import distributed
from torch.distributed.tensor import Shard, distribute_tensor

from gaugefix.errors import GaugeError, SettingError
from gaugefix.functional import noether_charge
from gaugefix.regularizers import get_term, term_names
from gaugefix.regularizers.sharded_charges import charges_of_shards
from gaugefix.regularizers.sharded_moments import moment_map_for
from gaugefix.sharding import Shards, place
from gaugefix.slices import UnitNorm
from gaugefix.symmetry import named_tensors
from tests.slices.attention_nets import ALL, any_net


def sharded(tensors, mesh, keep=()):
    """Every parameter by rows, tied ones once; buffers and those of ``keep`` as they are."""
    made = {}
    for name, t in tensors.items():
        if isinstance(t, torch.nn.Parameter) and name not in keep and id(t) not in made:
            made[id(t)] = distribute_tensor(t.detach(), mesh, [Shard(0)]).requires_grad_(t.requires_grad)
    return {name: made.get(id(t), t) for name, t in tensors.items()}


def same_on_both(values):
    flat = torch.cat([v.detach().double().reshape(-1) for v in values] or [torch.zeros(1)])
    others = [torch.empty_like(flat) for _ in range(distributed.get_world_size())]
    distributed.all_gather(others, flat)
    return all(torch.equal(flat, other) for other in others)


def relative(found, expected):
    """Largest difference over all tensors, by the largest entry; on both processes."""
    size = max([float(e.abs().max()) for e in expected if e.numel()], default=0.0)
    pairs = zip(found, expected, strict=True)
    far = torch.tensor([max((float((f - e).abs().max()) for f, e in pairs if e.numel()), default=0.0)])
    distributed.all_reduce(far, distributed.ReduceOp.MAX)
    return float(far) / size if size else float(far)


def gradient_apart(term, gauge, tensors, shards, parameters):
    """What the term adds on shards, against what it adds on whole parameters."""
    expected = {name: torch.zeros_like(tensors[name]) for name in parameters}
    term.add_gradient_(gauge, tensors, expected, 3.0)
    found = {name: torch.zeros_like(shards.local[name]) for name in parameters}
    term.add_gradient_(gauge, shards, found, 3.0)
    places = shards.places
    cut = {name: g if places[name] is None else places[name].cut(g) for name, g in expected.items()}
    known = float(term.measure(gauge, tensors))
    value = abs(term.measure(gauge, shards) - known) / max(abs(known), 1e-300)
    replicated = same_on_both([g for name, g in found.items() if places[name] is None])
    return relative(list(found.values()), list(cut.values())), value, replicated, expected


def of_terms(mesh):
    """By term: the largest differences over all networks on which it has a meaning."""
    report = {}
    for net_name in ALL:
        net, gauge, _ = any_net(net_name)
        tensors, parameters = named_tensors(net), list(dict(net.named_parameters()))
        for keep in ((), tuple(parameters[::3])):
            shards = Shards(sharded(tensors, mesh, keep))
            moments = moment_map_for(gauge, shards).here(shards)
            bits = same_on_both([moments.ins, moments.outs, *(m for pair in moments.blocks for m in pair)])
            for name in term_names():
                term = get_term(name)
                if not term.takes_shards:
                    continue
                try:
                    term.check(gauge)
                    gradient, value, replicated, expected = gradient_apart(term, gauge, tensors, shards, parameters)
                except SettingError as error:
                    if "sharded alike" in str(error):
                        report["neighbours"] = str(error)
                    continue
                entry = report.setdefault(
                    name, {"gradient": 0.0, "value": 0.0, "bits": True, "cases": 0, "largest": 0.0}
                )
                entry["gradient"] = max(entry["gradient"], gradient)
                entry["value"] = max(entry["value"], value)
                entry["bits"] &= bits and replicated
                entry["cases"] += 1
                entry["largest"] = max(entry["largest"], *(float(g.abs().max()) for g in expected.values()))
    return report


def of_slices_and_charges(mesh):
    """unit_norm and the charges, over all networks."""
    report = {"unit_norm": [], "residual": [], "charges": [], "refused alike": []}
    for net_name in ALL:  # 60 rounds: three of them have units that feed themselves, and no unit norm
        net, gauge, _ = any_net(net_name)
        tensors = gauge.check(net)
        shards = Shards(sharded(tensors, mesh))
        known = noether_charge(net, gauge)
        found = charges_of_shards(gauge, shards)
        assert list(found) == list(known)
        report["charges"].append(relative(list(found.values()), list(known.values())))
        outcomes = []
        for given in (tensors, shards):
            try:
                outcomes.append(UnitNorm(rounds=60).solve(gauge, given))
            except GaugeError as error:
                outcomes.append(str(error))
        if any(isinstance(o, str) for o in outcomes):
            report["refused alike"].append(outcomes[0] == outcomes[1])
            continue
        one, two = outcomes
        assert [name for name, _ in one.steps] == [name for name, _ in two.steps]
        assert same_on_both([value for _, value in two.steps])
        report["unit_norm"].append(relative([v for _, v in two.steps], [v for _, v in one.steps]))
        expected = float(UnitNorm().residual(gauge, tensors))
        report["residual"].append(abs(float(UnitNorm().residual(gauge, shards)) - expected) / max(expected, 1e-300))
    return report


GATHERED = (
    ("charge", "mlp"),
    ("product_of_norms", "mlp"),
    ("balance", "post-norm encoder"),
    ("balance", "grouped queries"),
    ("balance", "bottleneck"),
)


def gathered(mesh):
    """How much of a network one gradient gathers."""
    sizes, gather = [], place.Place.gather

    def counted(self, rows):
        sizes.append(torch.Size(self.shape).numel())
        return gather(self, rows)

    place.Place.gather = counted
    report = {}
    try:
        for term, net_name in GATHERED:
            net, gauge, _ = any_net(net_name)
            shards = Shards(sharded(named_tensors(net), mesh))
            sizes.clear()
            gradients = {name: torch.zeros_like(shards.local[name]) for name, _ in net.named_parameters()}
            get_term(term).add_gradient_(gauge, shards, gradients, 1.0)
            report[f"{term} of {net_name}"] = sum(sizes) / sum(p.numel() for p in net.parameters())
    finally:
        place.Place.gather = gather
    return report


def not_finite(mesh):
    """NaN in the rows of one process: both say where."""
    net, gauge, _ = any_net("mlp")
    with torch.no_grad():
        net[2].weight[-1, 0] = torch.nan
    shards = Shards(sharded(gauge.check(net), mesh))
    try:
        UnitNorm().solve(gauge, shards)
    except GaugeError as error:
        messages = [None] * distributed.get_world_size()
        distributed.all_gather_object(messages, str(error))
        return messages
    return []


def all_of_them(mesh):
    """By what it is about."""
    return {
        "terms": of_terms(mesh),
        "slices": of_slices_and_charges(mesh),
        "gathered": gathered(mesh),
        "not finite": not_finite(mesh),
    }
