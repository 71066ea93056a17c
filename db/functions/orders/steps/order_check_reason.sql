-- order_check_reason: a reason becomes the line's notes. The words that the checkout writes there are not for others: they
-- tell what was rejected when the order was made.

create or replace function order_check_reason(reason text, field text default 'reason')
returns void
language plpgsql
stable
as $$
begin
  if order_check_reason.reason is null or checkout_is_blank(order_check_reason.reason) or length(order_check_reason.reason) > 1000 then
    perform checkout_raise_invalid(order_check_reason.field, 'must be a text of 1 to 1000 characters');
  elsif order_is_checkout_note(order_check_reason.reason) then
    perform checkout_raise_invalid(order_check_reason.field, 'is kept for lines that the checkout itself rejected');
  end if;
end;
$$;

revoke execute on function order_check_reason(text, text) from public;

comment on function order_check_reason(text, text) is
  'Step of the order functions: raises OC005, naming the field, unless the reason is a text of 1 to 1000 characters other '
  'than insufficient_inventory and below_minimum, which the checkout alone writes.';
