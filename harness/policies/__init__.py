"""The policies: models through litellm, the search baseline, oracles and doubles."""
