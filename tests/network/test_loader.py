from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from conftest import make_dataset

from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.network.device import DeviceConfig
from cryoquery.network.loader import N_AHEAD, Batch, BatchLoader, ahead, apply_symmetries


def test_images_come_in_order_and_turned(tmp_path) -> None:
    dataset = make_dataset(tmp_path / "d", {"train": 7, "val": 1})
    pool = Pool.of(dataset)
    labeled = LabeledImages(pool, np.array([1, 2, 4, 5, 6]), lambda rows: dataset.masks[rows])
    batches = [
        Batch(np.array([3, 0]), np.array([5, 0])),
        Batch(np.array([4, 1, 2]), np.array([1, 2, 3])),
    ]
    for batch, (images, masks) in zip(
        batches, BatchLoader(labeled, DeviceConfig().fabric())(batches), strict=True
    ):
        rows = labeled.indices[batch.positions]
        symmetries = torch.from_numpy(batch.symmetries)
        assert torch.equal(images, apply_symmetries(torch.from_numpy(pool.levels[rows])[:, None], symmetries))
        assert torch.equal(
            masks, apply_symmetries(torch.from_numpy(dataset.masks[rows])[:, None], symmetries)
        )


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_shares_of_a_batch_make_up_the_batch(n_ranks: int) -> None:
    batch = Batch(np.array([9, 4, 7, 1, 3]), np.arange(5))
    shares = [batch.share(rank, n_ranks) for rank in range(n_ranks)]
    assert np.concatenate([share.positions for share in shares]).tolist() == [9, 4, 7, 1, 3]
    assert np.concatenate([share.symmetries for share in shares]).tolist() == [0, 1, 2, 3, 4]


def test_reading_runs_ahead_but_not_far() -> None:
    started: list[int] = []
    items = ahead(lambda i: started.append(i) or i, range(100))
    assert next(items) == 0
    time.sleep(0.1)
    assert len(started) <= N_AHEAD + 1
    assert [0, *items] == list(range(100))


def test_what_fails_while_reading_fails_where_it_is_used() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda i: 1 // (i - 3), range(9)))
    assert threading.active_count() == before


def test_a_reader_that_is_given_up_stops() -> None:
    before = threading.active_count()
    items = ahead(lambda i: i, range(1000))
    next(items)
    items.close()
    assert threading.active_count() == before
