# A purchase, request by request, as curl makes it. $shop is the shop's URL, $secret what the payment provider signs with:
#
#     shop=http://127.0.0.1:8000 secret=... sh examples/shop/purchase.sh
set -eu

cup=00000000-0000-4000-8000-0000000000a2
bowl=00000000-0000-4000-8000-0000000000a3
bread=00000000-0000-4000-8000-0000000000b2
potter='X-Vendor-Store: 00000000-0000-4000-8000-0000000000a1'
baker='X-Vendor-Store: 00000000-0000-4000-8000-0000000000b1'
buyer='X-Buyer-Store: 00000000-0000-4000-8000-0000000000c1'

say() { echo; echo "-- $*"; }
uuid() { python3 -c 'import uuid; print(uuid.uuid4())'; }

# call CURL'S ARGUMENTS: the answer; a refusal goes to standard error, and fails.
call() {
  answer=$(curl --silent --show-error --fail-with-body --header 'Content-Type: application/json' "$@") || {
    echo "$answer" >&2
    return 1
  }
  echo "$answer"
}

# of ANSWER EXPRESSION: what Python makes of it, as `a`; money(cents) is dollars.
of() {
  ANSWER=$1 python3 -c "
import json, os
from types import SimpleNamespace
a = json.loads(os.environ['ANSWER'], object_hook=lambda fields: SimpleNamespace(**fields))
money = lambda cents: f'{cents / 100:.2f}'
print($2)"
}
order='f"{a.status}: total {money(a.total_cents)}, due {money(a.balance_due_cents)}, to be given back {money(a.refund_due_cents or 0)}"'

checkout() { # CART
  call "$shop/checkout" --header "$buyer" --header "Idempotency-Key: $1" --data '{"cart_id": "'"$1"'", "payment_method": "ach",
    "shipping_line": {"code": "standard"},
    "shipping_address": {"line1": "12 Main Street", "city": "Tulsa", "state": "OK", "postal_code": "74103", "country": "US"}}'
}

# The payment provider, which signs the bytes that it sends: event ID KIND CHARGE CENTS [ORDER]
event() {
  body=$(printf '{"id": "%s", "type": "charge.%s", "created_at": "2026-01-02T03:04:05Z", "charge_id": "%s", "amount_cents": %d, "currency": "USD"%s}' \
    "$1" "$2" "$3" "$4" "${5:+, \"order_id\": \"$5\"}")
  signature=$(BODY=$body python3 -c 'import hmac, os, sys; print(hmac.new(bytes.fromhex(sys.argv[1]), os.environb[b"BODY"], "sha256").hexdigest())' "$secret")
  call "$shop/payments/events" --header "X-Payment-Signature: $signature" --data "$body"
}

say 'what there is'
a=$(call "$shop/products")
of "$a" '", ".join(f"{each.title} {money(each.unit_price_cents)}" for each in a)'

say 'a bowl is ordered, and nobody pays for it yet'
unpaid=$(uuid)
a=$(call --request PUT "$shop/carts/$unpaid" --header "$buyer" --data '{"lines": [{"product_id": "'$bowl'", "quantity": 1}]}')
a=$(checkout "$unpaid")
of "$a" 'f"{a.vendor_orders[0].status}, to be paid until {a.vendor_orders[0].expires_at}"'
unpaid_charge=$(of "$a" 'a.checkout_group_id')
unpaid_order=$(of "$a" 'a.vendor_orders[0].order_id')
unpaid_cents=$(of "$a" 'a.totals.confirmed.total_cents')

say 'the ad of the cup is clicked, and its token goes into the cart; tax and shipping are in its quote'
cart=$(uuid)
token=$(of "$(call --request POST "$shop/ads/$cup/click" --header "$buyer")" 'a.ad_token')
a=$(call --request PUT "$shop/carts/$cart" --header "$buyer" --data '{
  "lines": [{"product_id": "'$cup'", "quantity": 3}, {"product_id": "'$bread'", "quantity": 1}], "ad_tokens": ["'"$token"'"]}')
sums='f"goods {money(sums.subtotal_cents)}, shipping {money(sums.transport_fee_cents)}, tax {money(sums.tax_cents)}, total {money(sums.total_cents)}"'
of "$a" "[sums := a.totals.quoted, $sums][1]"

say 'the checkout, and the same once more, which orders nothing'
for attempt in first second; do
  a=$(checkout "$cart")
  of "$a" "[sums := a.totals.confirmed, f'{len(a.vendor_orders)} orders, replayed {a.replayed}: ' + $sums][1]"
done
charge=$(of "$a" 'a.checkout_group_id')
cents=$(of "$a" 'a.totals.confirmed.total_cents')
cups=$(of "$a" 'next(each.order_id for each in a.vendor_orders if each.items[0].name == "Cup")')
bread_order=$(of "$a" 'next(each.order_id for each in a.vendor_orders if each.items[0].name == "Bread")')

say 'one charge pays both orders; the provider tells it twice, and somebody else tells it too'
for attempt in first second; do
  of "$(event evt_1 captured "$charge" "$cents")" 'a.status'
done
curl --silent --output /dev/null --write-out 'a wrong signature: %{http_code}\n' "$shop/payments/events" --header 'X-Payment-Signature: 00' \
  --data '{"id": "evt_9", "type": "charge.refunded", "created_at": "2026-01-02T03:04:05Z", "charge_id": "'"$charge"'", "amount_cents": 100, "currency": "USD"}'
for each in "$cups" "$bread_order"; do
  of "$(call "$shop/orders/$each" --header "$buyer")" "$order"
done

say 'one cup is broken: the potter accepts two of three, and what was paid for it is to be given back'
line=$(of "$(call "$shop/orders/$cups" --header "$potter")" 'a.items[0].line_item_id')
a=$(call "$shop/orders/$cups/decide" --header "$potter" --data '{
  "decisions": [{"line_item_id": "'"$line"'", "accept_qty": 2, "reason": "One is broken."}], "change_key": "answer-1"}')
a=$(call "$shop/orders/$cups" --header "$buyer"); of "$a" "$order"
back=$(of "$a" 'a.refund_due_cents')
a=$(event evt_2 refunded "$charge" "$back" "$cups")
of "$(call "$shop/orders/$cups" --header "$buyer")" "$order"

say 'the potter delivers the two'
of "$(call --request POST "$shop/orders/$cups/lines/$line/fulfil" --header "$potter")" 'f"{a.status}: {a.items[0].fulfilled_qty} units"'

say 'the buyer cancels the bread'
a=$(call "$shop/orders/$bread_order/cancel" --header "$buyer" --data '{"reason": "baked some ourselves"}')
of "$(call "$shop/orders/$bread_order" --header "$buyer")" "$order"

say 'the baker has baked, and says so twice, which counts once'
for attempt in first second; do
  a=$(call "$shop/stock/$bread/changes" --header "$baker" --data '{"delta": 12, "change_key": "batch-'"$cart"'"}')
  of "$a" 'f"{a.available_qty} available"'
done

say 'the bowl was not paid in time: it can be sold again'
waited=0
until a=$(call "$shop/orders/$unpaid_order" --header "$buyer") && [ "$(of "$a" 'a.status')" = expired ]; do
  waited=$((waited + 1))
  [ $waited -lt 120 ] || { echo 'it has not expired' >&2; exit 1; }
  sleep 1
done
of "$a" "$order"
of "$(call "$shop/stock/$bowl" --header "$potter")" 'f"{a.available_qty} bowls available"'

say 'its money comes all the same: it is recorded, and due back'
a=$(event evt_3 captured "$unpaid_charge" "$unpaid_cents")
of "$(call "$shop/orders/$unpaid_order" --header "$buyer")" "$order"
