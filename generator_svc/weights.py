"""What each feature counts for, as `python -m bench.extractive_fit` found it on questions with known answers."""

from dataclasses import dataclass

from generator_svc.features import Features


@dataclass(frozen=True, slots=True)
class Weights:
    """Two sums over the same features: `order` says which quote is best; `support` with `bias`, whether it answers."""

    order: Features
    support: Features
    bias: float


# Words alone.
LEXICAL = Weights(
    Features(
        covered=8.21,
        peaked=-10.73,
        rooted=4.74,
        topic=1.61,
        framed=2.58,
        led=3.13,
        above=1.89,
        headed=1.22,
        kind=1.69,
        lacking=-1.66,
        prior=3.04,
    ),
    Features(
        covered=2.22,
        peaked=-5.21,
        rooted=3.19,
        topic=0.91,
        framed=7.82,
        led=0.59,
        above=0.19,
        headed=-0.03,
        kind=0.06,
        lacking=-2.13,
        prior=0.70,
    ),
    -2.90,
)
# Words and the encoder.
ENCODED = Weights(
    Features(
        covered=6.00,
        peaked=-6.47,
        rooted=3.63,
        topic=0.98,
        framed=0.85,
        led=3.06,
        above=2.09,
        headed=1.35,
        kind=1.78,
        lacking=-1.56,
        prior=2.12,
        similarity=8.02,
    ),
    Features(
        covered=0.23,
        peaked=0.74,
        rooted=1.76,
        topic=0.06,
        framed=0.51,
        led=1.25,
        above=-0.16,
        headed=-0.07,
        kind=0.04,
        lacking=-2.01,
        prior=0.24,
        similarity=6.29,
    ),
    -4.61,
)
# Chinese, Japanese and Korean, by signs and their pairs.
DENSE = Weights(
    Features(
        covered=10.77,
        peaked=-12.43,
        rooted=10.79,
        topic=11.48,
        framed=17.28,
        led=4.25,
        above=1.30,
        headed=0.00,
        kind=0.00,
        lacking=-1.80,
        prior=0.99,
    ),
    Features(
        covered=8.55,
        peaked=-2.55,
        rooted=8.43,
        topic=15.07,
        framed=17.07,
        led=8.46,
        above=3.72,
        headed=0.00,
        kind=0.00,
        lacking=-1.01,
        prior=0.68,
    ),
    -6.64,
)
