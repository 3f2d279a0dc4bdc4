import argparse

import pytest

from gateway.__main__ import TENANT_NAME_MAX, tenant_name


@pytest.mark.parametrize("name", ["acme", "Müller & Söhne", "x" * TENANT_NAME_MAX])
def test_a_tenant_has_a_name_people_can_read(name: str) -> None:
    assert tenant_name(name) == name


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x00", "x" * (TENANT_NAME_MAX + 1)])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        tenant_name(name)
