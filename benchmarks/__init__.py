"""How fast the parts are, beside other libraries."""
