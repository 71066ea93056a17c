-- order_still_due: which of these orders may expire. In a statement after their locks: what was committed before them counts.
--
-- The events are asked beside the intent's state, which the host may have written; so are the lines: what was shipped is no longer to
-- be had for the asking.

create or replace function order_still_due(ids uuid[])
returns uuid[]
language plpgsql
stable
as $$
begin
  return array(
    select due.id
      from vendor_orders as due
      join payment_intents as intent on intent.order_id = due.id
     where due.id = any (order_still_due.ids)
       and due.balance_due_cents > 0
       and intent.status::text in ('unpaid', 'failed', 'rejected')
       and not exists (
         select from payment_events as event
          where event.order_id = due.id
         having bool_or(event.kind = 'captured')
             or coalesce(sum(event.amount_cents) filter (where event.kind = 'authorized'), 0)
                > coalesce(sum(event.amount_cents) filter (where event.kind = 'voided'), 0))
       and not exists (
         select from order_line_items as line
          where line.order_id = due.id and line.cart_item_id = line.id
            and (line.fulfilled_qty > 0 or line.reserved_qty = 0 and line.status <> 'rejected'))
     order by due.id);
end;
$$;

revoke execute on function order_still_due(uuid[]) from public;

comment on function order_still_due(uuid[]) is
  'Step of vendor_orders_expire: those of some locked orders that owe something, of which nothing was paid, authorised or shipped.';
