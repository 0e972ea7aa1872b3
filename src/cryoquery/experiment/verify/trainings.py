"""Whether the records of trainings are right: their keys, their models, their entries in the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryoquery.active.iteration import EXAMPLES, MODEL
from cryoquery.active.training_key import key_from
from cryoquery.experiment.verify.checks import Checks
from cryoquery.experiment.verify.context import VerifyContext
from cryoquery.experiment.verify.runs import Finished
from cryoquery.network.checkpoint import read_model
from cryoquery.network.model import ModelConfig
from cryoquery.storage.atomic import sha256
from cryoquery.storage.cache import MANIFEST, read_columns


def check_fingerprints(finished: Sequence[Finished], context: VerifyContext, checks: Checks) -> None:
    """Check that all was trained on one dataset, that of `environment.json`.

    The fingerprint that most iterations state is taken to be right.
    """
    usual = _usual_fingerprint(finished)
    if usual is None:
        return
    if context.environment is not None:
        recorded = context.environment.dataset_fingerprint
        text = f"dataset_fingerprint is {recorded[:12]}, {usual[:12]} in metrics.json"
        checks.check(recorded == usual, context.environment_file, text)
    for done in finished:
        if done.metrics:
            found = done.metrics.get("dataset_fingerprint")
            text = f"dataset_fingerprint is {str(found)[:12]}, {usual[:12]} elsewhere in the experiment"
            checks.check(found == usual, done.folder / "metrics.json", text)


def _usual_fingerprint(finished: Sequence[Finished]) -> str | None:
    said = (done.metrics.get("dataset_fingerprint") for done in finished)
    counted = Counter(fingerprint for fingerprint in said if isinstance(fingerprint, str))
    return counted.most_common(1)[0][0] if counted else None


def check_keys(finished: Sequence[Finished], context: VerifyContext, checks: Checks) -> Mapping[Path, str]:
    """Check the keys of all trainings against what they are digests of.

    Returns:
        for the folder of each iteration its key, recomputed where it can be.
    """
    said = {done.folder: done.key for done in finished if done.key is not None}
    cache_inputs = context.cache_inputs(_usual_fingerprint(finished))
    if not context.config_holds:
        checks.skip("training keys, since config.toml was changed")
        return said
    if cache_inputs is None:
        checks.skip("training keys, since environment.json does not hold what they are made of")
        return said
    known = [done for done in finished if done.metrics and done.sets is not None]
    expected = [key_from(done.run, cache_inputs, done.sets or ()) for done in known]
    found = [done.metrics.get("training_key") for done in known]
    if len(known) > 1 and not any(a == b for a, b in zip(found, expected, strict=True)):
        text = "no training_key comes out with its device_type, precision, splits and versions"
        checks.check(False, context.environment_file, text)
        return said
    for done, key, wanted in zip(known, found, expected, strict=True):
        checks.equal(done.folder / "metrics.json", "training_key", key, wanted)
    return said | {done.folder: key for done, key in zip(known, expected, strict=True)}


def check_model(done: Finished, key: str | None, context: VerifyContext, checks: Checks) -> None:
    """Check the `model.pt` and `examples.npz` of an iteration whose training has ``key``."""
    _check_examples(done.folder / EXAMPLES, checks)
    file, keep = done.folder / MODEL, context.config.keep_models
    is_last = done.iteration + 1 == len(done.run.counts)
    if not file.exists():
        if keep == "all" or (keep == "last" and is_last):
            checks.check(False, file, f"is not there, though keep_models is {keep!r}")
        else:
            checks.skip("model.pt that were not to be kept")
        return
    found = checks.readable_once(file, sha256)
    if found is None:
        return
    if done.metrics and not checks.equal(file, "SHA-256", found, done.metrics.get("model_sha256")):
        return
    maker = checks.readable_once(file, _maker)
    if maker is None:
        return
    model, made_by = maker
    expected: dict[str, Any] = {"seed": done.run.seed}
    if key is not None:
        expected["training_key"] = key
    if context.config_holds:
        protocol = context.config.protocol()
        expected |= {name: protocol[name] for name in ("training", "pretraining", "start_sha256")}
        checks.check(model == context.config.model, file, "holds a network of another configuration")
    checks.fields(file, made_by, expected)


def _maker(file: Path) -> tuple[ModelConfig, Mapping[str, Any]]:
    """Configuration of the network in a `model.pt`, and how it was trained."""
    saved = read_model(file)
    return saved.model, saved.made_by if isinstance(saved.made_by, dict) else {}


def _check_examples(file: Path, checks: Checks) -> None:
    columns = checks.readable(file, read_columns)
    if columns is not None and checks.check(
        columns.keys() == {"rows", "probability"},
        file,
        f"holds {', '.join(columns)}, not rows and probability",
    ):
        rows, maps = columns["rows"].shape, columns["probability"].shape
        checks.check(rows == maps[:1], file, f"holds maps {maps} for rows {rows}")


def check_cache(finished: Sequence[Finished], context: VerifyContext, checks: Checks) -> None:
    """Check the entries of the cache that belong to the experiment: all where the cache is its own."""
    cache = context.cache
    if not cache.is_dir():
        checks.skip(f"the cache, since it is not at {cache}")
        return
    for entry in _entries(finished, context):
        manifest = checks.json(entry / MANIFEST, dict[str, str])
        for name, recorded in (manifest or {}).items():
            found = checks.readable_once(entry / name, sha256)
            if found is not None:
                checks.equal(entry / name, "SHA-256", found, recorded)


def _entries(finished: Sequence[Finished], context: VerifyContext) -> Iterator[Path]:
    if context.config.cache is None:
        found = context.cache.glob("[0-9a-f][0-9a-f]/*")
        yield from sorted(path for path in found if path.is_dir() and not path.name.startswith("."))
        return
    for key in sorted({done.key for done in finished if done.key is not None}):
        if (entry := context.cache / key[:2] / key).is_dir():
            yield entry
