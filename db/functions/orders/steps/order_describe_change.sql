-- order_describe_change: where an order stands and what one change did to it, for the event, the answer, and a repeat of it.
--
-- Without a change (an order that ended before changes were kept, or that a checkout rejected) it says no more than the order.

create or replace function order_describe_change(vendor_order vendor_orders, change order_changes)
returns jsonb
language plpgsql
stable
as $$
declare
  v_change constant order_changes := order_describe_change.change;
  v_line_ids constant uuid[] := array(select (line ->> 'line_item_id')::uuid from jsonb_array_elements(coalesce(v_change.lines, '[]')) as line);
begin
  return order_describe(order_describe_change.vendor_order, v_line_ids)
         || jsonb_build_object('reason', v_change.reason, 'changes', coalesce(v_change.lines, '[]'), 'amount_cents', v_change.amount_cents,
                               'details', v_change.details, 'change_key', v_change.change_key);
end;
$$;

revoke execute on function order_describe_change(vendor_orders, order_changes) from public;

comment on function order_describe_change(vendor_orders, order_changes) is
  'Step of the order functions: an order with the lines of a change, why and by how much they changed, as jsonb.';
