"""Places in object stores, and the settings that name them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest_svc.places import Place, parse_place
from ingest_svc.settings import Settings

_PARTS = st.lists(st.text("ab.%2e", min_size=1, max_size=4), max_size=3).map("/".join)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://docs", Place("s3", "docs")),
        ("gs://docs/", Place("gs", "docs")),
        ("az://docs/a b/%2e%2e/c?d#e/", Place("az", "docs", "a b/%2e%2e/c?d#e")),
    ],
)
def test_a_url_is_a_place(url: str, place: Place) -> None:
    """A key in a URL is taken as it is; the slash at its end says nothing."""
    assert parse_place(url) == place
    assert parse_place(place.url) == place


@pytest.mark.parametrize(
    "url",
    [
        "docs",
        "s3:docs",
        "s3:///docs",
        "s3://",
        "s3://d",
        "s3://Docs",
        "s3://docs:9000/a",
        "s3://docs//",
        "s3://docs/a//b",
        "s3://docs/./a",
        "s3://docs/a/..",
        "s3://docs/a\n",
        "ftp://docs/a",
    ],
)
def test_what_is_no_place_is_refused(url: str) -> None:
    """A URL of another kind, without a bucket, or with parts that are no names is refused."""
    with pytest.raises(ValueError, match=r"s3://, gs:// or az://|parts"):
        parse_place(url)


@given(_PARTS, _PARTS)
def test_a_place_contains_what_is_below_it(above: str, path: str) -> None:
    """A place contains itself and what is below it by whole parts, whatever their letters."""
    try:
        place, other = parse_place(f"s3://docs/{above}"), parse_place(f"s3://docs/{path}")
    except ValueError:
        return
    below = path.split("/")[: len(above.split("/"))] == above.split("/")
    assert place.contains(other) == (below or not place.prefix)
    assert place.path(place.key(path)) == path


def settings(**values: str) -> Settings:
    """The settings with some values."""
    return Settings(**values)  # type: ignore[arg-type]


def test_roots_are_folders_and_places() -> None:
    """Roots are parted by colons, but for those of URLs."""
    roots = settings(source_roots="/srv/docs:s3://docs/a:gs://docs::rel/b")
    assert [str(root) for root in roots.allowed_roots] == ["/srv/docs", "rel/b"]
    assert roots.allowed_places == [Place("s3", "docs", "a"), Place("gs", "docs")]
    assert (settings().allowed_roots, settings().allowed_places) == ([], [])


@pytest.mark.parametrize(
    ("object_store_url", "source_roots"),
    [
        ("s3://docs/ragmesh", "s3://docs"),
        ("s3://docs/ragmesh", "/srv:s3://docs/ragmesh/objects"),
        ("s3://docs", "s3://docs/ragmesh"),
        ("file:/srv/objects", "/srv"),
        ("file:/srv/objects", "/srv/docs:/srv/docs/.."),
        ("file:/srv/objects", "s3://docs//a"),
        ("s3://docs/../a", ""),
        ("https://docs/a", ""),
    ],
)
def test_documents_of_all_tenants_are_no_source(object_store_url: str, source_roots: str) -> None:
    """A root that holds the documents' bytes stops the process, and so does a URL of no place."""
    with pytest.raises(ValidationError):
        settings(object_store_url=object_store_url, source_roots=source_roots)


def test_an_endpoint_is_a_url() -> None:
    """An endpoint that is no URL stops the process."""
    with pytest.raises(ValidationError, match="s3_endpoint_url"):
        settings(s3_endpoint_url="minio:9000")


def test_neighbours_in_a_bucket_are_apart() -> None:
    """A bucket may hold sources beside the documents' bytes."""
    chosen = settings(object_store_url="s3://docs/ragmesh", source_roots="s3://docs/ragmesh2:s3://docs/a")
    assert chosen.object_place == Place("s3", "docs", "ragmesh")
