-- checkout_raise_nothing_to_order: says that a cart has no orderable item.

create or replace function checkout_raise_nothing_to_order(cart_id uuid)
returns void
language plpgsql
stable
as $$
begin
  raise exception 'cart % has no orderable items', checkout_raise_nothing_to_order.cart_id
    using errcode = 'OC004',
          detail = jsonb_build_object('cart_id', checkout_raise_nothing_to_order.cart_id),
          hint = 'Ask for a new quote, or replace the unavailable items.';
end;
$$;

revoke execute on function checkout_raise_nothing_to_order(uuid) from public;

comment on function checkout_raise_nothing_to_order(uuid) is 'Step of checkout_execute: raises OC004 for a cart of which nothing can be ordered.';
