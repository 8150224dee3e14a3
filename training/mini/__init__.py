"""The miniature world: small drawn images with Turkish and English captions, and the small CLIP that sees them."""
