"""Every test runs with JAX's key-reuse checker on: a random key that is used twice is an error."""

import jax

jax.config.update("jax_debug_key_reuse", True)
