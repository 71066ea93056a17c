"""Who asks. Here a header says so, which a gateway in front has to set: your own authentication goes in its place."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, HTTPException

from pycheckout.http import Party

BuyerHeader = Annotated[UUID | None, Header(alias="X-Buyer-Store")]
VendorHeader = Annotated[UUID | None, Header(alias="X-Vendor-Store")]


async def buyer(store: BuyerHeader = None) -> UUID:
    if store is None:
        raise HTTPException(401, "no X-Buyer-Store")
    return store


async def vendor(store: VendorHeader = None) -> UUID:
    if store is None:
        raise HTTPException(401, "no X-Vendor-Store")
    return store


async def party(buyer_store: BuyerHeader = None, vendor_store: VendorHeader = None) -> Party:
    """The one or the other; the order routes answer 401 to none and to both."""
    return Party(buyer_store_id=buyer_store, vendor_store_id=vendor_store)


Buyer = Annotated[UUID, Depends(buyer)]
Vendor = Annotated[UUID, Depends(vendor)]
