"""The keys that the library adds to a model's config.json, and what they make of it."""

# key in config.json for what the architecture's own configuration cannot say
TERNARY = "prunebook_ternary"


# key in config.json: linears that hold packed weights, and in what form
COMPRESSED = "prunebook_packed"


# key in config.json for what the architecture's own configuration cannot say
WIDTHS = "prunebook_widths"
