"""The ad service: who clicks an ad gets a signed token, and the quote of a cart takes it along."""

import os
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

from pycheckout.ads import mint

KID = "shop"
CAMPAIGN = UUID("00000000-0000-4000-8000-0000000000ad")


def click(buyer_store_id: UUID, product_id: UUID) -> str:
    """The token of a click on a product's ad. SHOP_AD_SECRET is the key that the database knows as KID, in hex."""
    now = datetime.now(UTC)
    return mint(
        secret=bytes.fromhex(os.environ["SHOP_AD_SECRET"]),
        kid=KID,
        ad_id=CAMPAIGN,
        creative_id=uuid5(CAMPAIGN, str(product_id)),
        placement="product",
        target_type="product",
        target_id=product_id,
        buyer_store_id=buyer_store_id,
        event_type="click",
        occurred_at=now,
        expires_at=now + timedelta(days=7),
    )
