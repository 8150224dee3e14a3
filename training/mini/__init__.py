"""The miniature world: small drawn pictures with Turkish and English captions, and the small CLIP that sees them."""
