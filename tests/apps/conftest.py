"""Fixtures of the apps."""

import pytest


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param
