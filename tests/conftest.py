"""Every test runs with JAX's key-reuse checker on: a random key that is used twice is an error."""

import warnings

import jax
import pytest
from programs import compiled_once

with warnings.catch_warnings():  # its dependencies touch deprecated parts of jax; our own warnings stay errors
    warnings.simplefilter("ignore")
    import rlax  # noqa: F401

jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_num_cpu_devices", 4)  # so that what is spread over devices can be tested on one machine
jax.devices()  # now, before a test of the whole program chooses another number for those that follow it


@pytest.fixture(scope="module")
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.getbasetemp() / "compiled"):
        yield
