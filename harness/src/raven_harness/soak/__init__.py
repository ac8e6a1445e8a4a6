"""One home at its real pace for hours or days: what its parts take, and what of that grows."""
