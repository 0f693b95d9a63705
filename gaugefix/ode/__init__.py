"""Neural ODEs: diffeomorphisms of spacetime as gauge transformations of the field (docs/neural_ode.md)."""

from gaugefix.ode.affine_gauge import AffineGauge
from gaugefix.ode.composition import Composition
from gaugefix.ode.connecting import Connecting
from gaugefix.ode.duration_gauge import fix_durations_, rescale_durations_
from gaugefix.ode.end_slices import check_ends
from gaugefix.ode.equal_lengths import equal_lengths
from gaugefix.ode.equidistribute import equidistribute, final_errors
from gaugefix.ode.field import Diffeomorphism, Field
from gaugefix.ode.fit_gauge import fit_gauge
from gaugefix.ode.fitted_field import FittedField, GaugeFit
from gaugefix.ode.gauged_field import GaugedField
from gaugefix.ode.holonomy import holonomy, integrate
from gaugefix.ode.landau import landau_gauge, landau_residual
from gaugefix.ode.landau_field import LandauField
from gaugefix.ode.lattice import Lattice
from gaugefix.ode.linear_field import LinearField
from gaugefix.ode.newton import invert
from gaugefix.ode.push_forward import PushForward, push_forward
from gaugefix.ode.rescaling import ReluField, Rescaling
from gaugefix.ode.ripple import Ripple
from gaugefix.ode.sampling import sample
from gaugefix.ode.segmented_field import SegmentedField
from gaugefix.ode.temporal import GaugeFixed, temporal_gauge
from gaugefix.ode.terms import depth_smoothness, jacobian_frobenius, kinetic, speed_variance
from gaugefix.ode.time_gauge import TimeGauge
from gaugefix.ode.warped_field import WarpedField

__all__ = [
    "AffineGauge",
    "Composition",
    "Connecting",
    "Diffeomorphism",
    "Field",
    "FittedField",
    "GaugeFit",
    "GaugeFixed",
    "GaugedField",
    "LandauField",
    "Lattice",
    "LinearField",
    "PushForward",
    "ReluField",
    "Rescaling",
    "Ripple",
    "SegmentedField",
    "TimeGauge",
    "WarpedField",
    "check_ends",
    "depth_smoothness",
    "equal_lengths",
    "equidistribute",
    "final_errors",
    "fit_gauge",
    "fix_durations_",
    "holonomy",
    "integrate",
    "invert",
    "jacobian_frobenius",
    "kinetic",
    "landau_gauge",
    "landau_residual",
    "push_forward",
    "rescale_durations_",
    "sample",
    "speed_variance",
    "temporal_gauge",
]
