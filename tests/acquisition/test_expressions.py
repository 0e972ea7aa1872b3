from __future__ import annotations

import re
from pathlib import Path

import pytest

from cryoquery.acquisition.candidates import Strategy
from cryoquery.acquisition.strategies import STRATEGIES, image_score, register, strategy_of
from cryoquery.errors import ConfigError

READABLE = [
    "top(mean(entropy))",
    "power(foreground(mutual_information), beta=(1, 100))",
    "mix((0.7, power(top_fraction(entropy, 0.05))), (0.3, k_means))",
    "mix(uncertainty, 0.7, diversity)",
    "stratified(power(boundary(entropy('dihedral'), width_px=2), standardize=False), otherwise=random)",
    "clustered(top(per_particle(expected_entropy(ensemble='dihedral4'))), k=5)",
    "k_center(mean(margin), shortlist=4)",
    "cost_aware(objects(least_confidence))",
    "top(per_minute(mean(entropy), seconds_per_image=0))",
    "top(n_particles)",
    " top ( n_particles() ) ",
]


@pytest.mark.parametrize("text", READABLE)
def test_expressions_are_read(text: str) -> None:
    assert isinstance(strategy_of(text), Strategy)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_row_is_read(name: str) -> None:
    assert isinstance(STRATEGIES[name].strategy, Strategy)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("top(forground(entropy))", "'forground': unknown name; did you mean 'foreground'?"),
        ("top(entropy)", "score must be an image score, such as mean.entropy., not a pixel score"),
        ("top(random)", "not a selection"),
        ("top()", "top: score is missing"),
        ("top(mean(entropy), 3)", "top: takes score; 3 does not fit"),
        ("power(mean(entropy), bet=1)", "takes score, beta, standardize; 'bet' does not fit"),
        ("power(mean(entropy), beta=0)", "beta=0: Input should be greater than 0"),
        ("top(top_fraction(entropy, 1.5))", "fraction=1.5"),
        ("mix((0.7, random))", "mix: the shares must add up to 1"),
        ("mix((1.5, random), (0.5, random))", "share 1.5"),
        ("mix(random, random)", "give pairs of a share and a selection"),
        ("top(mean(mutual_information('turn')))", "ensemble='turn'"),
        ("mean(entropy)", "is an image score; expected a selection"),
        ("top(mean(entropy)", "cannot be read"),
        ("", "cannot be read"),
        ("random.random()", "neither a name"),
        ("[random]", "neither a name"),
        ("__import__('os').system('true')", "neither a name"),
        ("eval('1')", "'eval': unknown name"),
        ("top(mean(entropy), **{})", "given twice, or with"),
        ("(" * 500 + "random" + ")" * 500, "cannot be read"),
        ("top(mean(" * 300, "longer than 2000 characters"),
        ("top(per_minute(mean(entropy), 0, 0))", "an image costs something"),
        ("uncertainty(3)", "takes nothing; 3 does not fit"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        strategy_of(text)
    assert "\n" not in str(refused.value)


def test_an_expression_knows_what_it_needs() -> None:
    needs = strategy_of("mix((0.5, top(mean(mutual_information))), (0.5, k_center(foreground(entropy))))")
    assert {(signal.key, signal.ensemble) for signal in needs.needs} == {
        ("mutual_information@dihedral", "dihedral"),
        ("foreground(entropy)", ""),
        ("features", ""),
    }
    assert needs.looks_at_labeled
    assert not strategy_of("random").needs
    assert not strategy_of("stratified(random)").needs
    assert strategy_of("mix((0.5, stratified(random)), (0.5, random))").by_group
    assert not strategy_of("stratified(random, otherwise=random)").by_group


def test_the_table_in_the_docs_is_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "acquisition.md").read_text()
    table = text.split("## The table")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", table, re.MULTILINE))
    stated = {name: row.expression for name, row in STRATEGIES.items()}
    assert rows == stated


def test_names_are_given_once() -> None:
    for name in ("entropy", "top", "no name", "2nd"):
        with pytest.raises(ConfigError, match="is taken or no name"):
            register(name, "random", "")
    with pytest.raises(ConfigError, match="expected an image score"):
        image_score("random")
