"""The requests for pictures, and what answers them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response

from cryoquery.label.pictures import Pictures
from cryoquery.label.security import RefusedError

OF_PICTURES = "private, max-age=3600"
"""How long browsers keep them unasked."""

FARTHEST_PX = 1e6
MOST_CUTOUTS = 100
Item = Annotated[int, Path(ge=0, lt=10**9)]
Lowpass = Annotated[float | None, Query(gt=0, le=1e6, allow_inf_nan=False)]
router = APIRouter(prefix="/api/items/{item}")


@router.get("/picture")
async def picture(
    request: Request,
    item: Item,
    size: Annotated[int, Query(ge=1, le=100_000)] = 2048,
    lowpass: Lowpass = None,
) -> Response:
    """A picture of the item."""
    pictures: Pictures = request.app.state.pictures
    ready = await pictures.picture(item, size, lowpass, request.headers.get("if-none-match"))
    return send(ready.etag, ready.content, "image/jpeg", OF_PICTURES)


@router.get("/tile")
async def tile(
    request: Request,
    item: Item,
    factor: Annotated[int, Query(ge=1, le=64)],
    row: Annotated[int, Query(ge=0, le=1000)],
    column: Annotated[int, Query(ge=0, le=1000)],
    lowpass: Lowpass = None,
) -> Response:
    """A part of the item's micrograph, finer than its pictures."""
    pictures: Pictures = request.app.state.pictures
    known = request.headers.get("if-none-match")
    ready = await pictures.tile(item, factor, (row, column), lowpass, known)
    return send(ready.etag, ready.content, "image/jpeg", OF_PICTURES)


@router.get("/cutouts")
async def cutouts(
    request: Request,
    item: Item,
    at: Annotated[str, Query(max_length=4000, pattern=r"^[-0-9.,;]+$")],
    lowpass: Lowpass = None,
) -> Response:
    """Small pictures of places of the item's micrograph, side by side; ``at``: y,x;y,x;…"""
    try:
        centers_yx = np.array([pair.split(",") for pair in at.split(";")], dtype=np.float64).reshape(-1, 2)
    except ValueError:
        centers_yx = np.array([np.nan])
    if len(centers_yx) > MOST_CUTOUTS or not (np.abs(centers_yx) < FARTHEST_PX).all():
        raise RefusedError(422, f"at: expected y,x;y,x;… of at most {MOST_CUTOUTS} places")
    pictures: Pictures = request.app.state.pictures
    ready = await pictures.cutouts(item, centers_yx, lowpass, request.headers.get("if-none-match"))
    return send(ready.etag, ready.content, "image/jpeg", OF_PICTURES)


@router.get("/heat")
async def heat(
    request: Request, item: Item, model: Annotated[str, Query(pattern=r"^(step|picks)_[0-9]{1,6}$")]
) -> Response:
    """Where a model sees particles on the item's micrograph."""
    pictures: Pictures = request.app.state.pictures
    ready = await pictures.heat(item, model, request.headers.get("if-none-match"))
    return send(ready.etag, ready.content, "image/png", OF_PICTURES)


@router.get("/thumbnail")
async def thumbnail(request: Request, item: Item) -> Response:
    """A small picture of the item."""
    pictures: Pictures = request.app.state.pictures
    ready = await pictures.thumbnail(item, request.headers.get("if-none-match"))
    return send(ready.etag, ready.content, "image/jpeg", OF_PICTURES)


def send(etag: str, content: bytes | None, media_type: str, caching: str) -> Response:
    """A file; None: the browser has it."""
    headers = {"ETag": etag, "Cache-Control": caching}
    if content is None:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
