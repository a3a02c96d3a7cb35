"""What a vehicle reads of the certificate."""

import json
from dataclasses import replace

import pytest

from qpde_perception.bundles import CERTIFICATE, BundleError, global_bound_of


def with_certificate(bundle, content):
    return replace(bundle, contents={**bundle.contents, CERTIFICATE: content})


def test_the_bound_is_that_of_the_certificate_and_none_without_one(shipped_bundle):
    stated = json.loads(shipped_bundle.read(CERTIFICATE))["global_bound"]
    assert global_bound_of(shipped_bundle) == stated > 0
    bare = {name: each for name, each in shipped_bundle.contents.items() if name != CERTIFICATE}
    assert global_bound_of(replace(shipped_bundle, contents=bare)) is None


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"global_bound": -1}', b'{"global_bound": NaN}', b"[]", b"\xff"]
)
def test_a_damaged_certificate_is_refused_with_its_name(shipped_bundle, content):
    with pytest.raises(BundleError, match=rf"{CERTIFICATE}: .+; certify the model again"):
        global_bound_of(with_certificate(shipped_bundle, content))
