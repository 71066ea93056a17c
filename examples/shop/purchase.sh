# A purchase, request by request, as curl makes it. $shop is the shop's URL:
#
#     shop=http://127.0.0.1:8000 sh examples/shop/purchase.sh
set -eu

say() { echo; echo "-- $*"; }
call() { curl --silent --show-error --fail-with-body --header 'Content-Type: application/json' "$@"; }
of() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }

cup=00000000-0000-4000-8000-0000000000a2
bread=00000000-0000-4000-8000-0000000000b2
potter='X-Vendor-Store: 00000000-0000-4000-8000-0000000000a1'
baker='X-Vendor-Store: 00000000-0000-4000-8000-0000000000b1'
buyer='X-Buyer-Store: 00000000-0000-4000-8000-0000000000c1'
cart=$(python3 -c 'import uuid; print(uuid.uuid4())')

say 'what there is'
call "$shop/products"; echo

say 'the ad of the cup is clicked, and its token goes into the cart'
token=$(call --request POST "$shop/ads/$cup/click" --header "$buyer" | of '["ad_token"]')
call --request PUT "$shop/carts/$cart" --header "$buyer" --data '{
  "lines": [{"product_id": "'$cup'", "quantity": 3}, {"product_id": "'$bread'", "quantity": 1}], "ad_tokens": ["'$token'"]}'; echo

say 'the checkout, and the same once more, which orders nothing'
for attempt in first second; do
  call "$shop/checkout" --header "$buyer" --header "Idempotency-Key: $cart" --data '{"cart_id": "'$cart'", "payment_method": "ach", "shipping_line": {"code": "express"},
    "shipping_address": {"line1": "12 Main Street", "city": "Tulsa", "state": "OK", "postal_code": "74103", "country": "US"}}'; echo
done

say 'the potter delivers'
order=$(call "$shop/orders?status=created_pending" --header "$potter" | of '["orders"][0]["order_id"]')
line=$(call "$shop/orders/$order" --header "$potter" | of '["items"][0]["line_item_id"]')
call --request POST "$shop/orders/$order/lines/$line/fulfil" --header "$potter"; echo

say 'the buyer cancels the bread'
order=$(call "$shop/orders?status=created_pending" --header "$buyer" | of '["orders"][0]["order_id"]')
call "$shop/orders/$order/cancel" --header "$buyer" --data '{"reason": "baked some ourselves"}'; echo

say 'the baker has baked, and says so twice, which counts once'
for attempt in first second; do
  call "$shop/stock/$bread/changes" --header "$baker" --data '{"delta": 12, "change_key": "batch-'$cart'"}'; echo
done
