-- checkout_says_more: whether the orders of a conversion say more than their lines and discounts: something of tax, shipping, terms,
-- a deadline, what the buyer noted, or what became of parts of their lines since. Of a conversion of ours, orders of the host
-- under its anchor are not asked.

create or replace function checkout_says_more(checkout_group_id uuid, is_ours boolean)
returns boolean
language plpgsql
stable
as $$
begin
  return exists (
           select from vendor_orders as own
            where own.checkout_group_id = checkout_says_more.checkout_group_id and (own.promo_discount_cents is not null or not checkout_says_more.is_ours)
              and (own.tax_cents <> 0 or own.transport_fee_cents <> 0
                   or num_nonnulls(own.shipping_tax_cents, own.tax_included, own.vendor_shipping_line, own.purchase_order, own.metadata, own.expires_at,
                                   own.adjustments_cents, own.refund_due_cents) + num_nonnulls(own.billing_address) > 0))
      or exists (
           select from vendor_orders as own
             join order_line_items as line on line.order_id = own.id
            where own.checkout_group_id = checkout_says_more.checkout_group_id and (own.promo_discount_cents is not null or not checkout_says_more.is_ours)
              and (num_nonnulls(line.tax_cents, line.tax_lines, line.fulfilled_qty, line.returned_qty) > 0
                   or line.released_qty > 0 and order_is_checkout_note(line.notes) is not true))
      or exists (
           select from vendor_orders as own
             join payment_intents as payment on payment.order_id = own.id
            where own.checkout_group_id = checkout_says_more.checkout_group_id and (own.promo_discount_cents is not null or not checkout_says_more.is_ours)
              and payment.payment_terms is not null);
end;
$$;

revoke execute on function checkout_says_more(uuid, boolean) from public;

comment on function checkout_says_more(uuid, boolean) is
  'Step of checkout_build_result: whether the orders of an anchor are to be shown whole.';
