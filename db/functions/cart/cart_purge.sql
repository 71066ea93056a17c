-- cart_purge: deletes old converted carts whose orders have ended, and quotes that ran out long ago. The orders stay.
--
-- With checkout_erase the one way past the triggers that guard converted carts: it writes a permit for each cart, valid
-- in this transaction alone. A cart that a checkout, a replay or a quote has locked is passed over, so that it waits for
-- nobody; a replay of one that is being deleted waits for this batch, and finds nothing.

create or replace function cart_purge(older_than interval, max_rows integer default 10000)
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_cutoff constant timestamptz := checkout_cutoff(cart_purge.older_than, cart_purge.max_rows);
  v_transaction_id constant xid8 := pg_current_xact_id();
  v_key record;
  v_cart_ids uuid[];
  v_rows bigint;
  v_left bigint;
begin
  select con.conname, con.conrelid::regclass as owner into v_key
    from pg_constraint as con
   where con.contype = 'f' and con.confdeltype in ('c', 'n', 'd')
     and con.confrelid in ('cart_records'::regclass, 'cart_vendor_groups'::regclass, 'cart_items'::regclass)
     and con.conrelid in ('vendor_orders'::regclass, 'order_line_items'::regclass, 'payment_intents'::regclass)
   order by con.conname
   limit 1;
  if found then
    raise exception 'foreign key % of table % would carry the deletion on to orders', v_key.conname, v_key.owner
      using errcode = 'dependent_objects_still_exist',
            hint = format('Drop it first: ALTER TABLE %s DROP CONSTRAINT %I;', v_key.owner, v_key.conname);
  end if;

  -- The orders are counted, cart by cart, not joined: a join would read all orders for the few carts of a batch.
  select array_agg(cart.id) into v_cart_ids
    from (select each.id
            from cart_records as each
           where coalesce(each.converted_at, each.valid_until) < v_cutoff
             and each.status in ('active', 'converted')
             and 0 = (select count(*)
                        from vendor_orders as vendor_order
                       where vendor_order.checkout_group_id = each.checkout_group_id
                         and vendor_order.status not in ('rejected', 'delivered', 'closed', 'canceled', 'expired'))
           order by coalesce(each.converted_at, each.valid_until)
           limit cart_purge.max_rows
             for update skip locked) as cart;
  if v_cart_ids is null then
    return 0;
  end if;

  insert into cart_change_permits (cart_id, transaction_id)
  select id, v_transaction_id from unnest(v_cart_ids) as id on conflict (cart_id) do nothing;
  delete from cart_items as item where item.cart_id = any (v_cart_ids);
  get diagnostics v_rows = row_count;
  v_left := (select count(*) from cart_items as item where item.cart_id = any (v_cart_ids));
  if v_left > 0 then
    perform checkout_raise_rows(null, 'cart_items', v_rows + v_left, v_rows);
  end if;
  delete from cart_vendor_groups as vendor where vendor.cart_id = any (v_cart_ids);
  get diagnostics v_rows = row_count;
  v_left := (select count(*) from cart_vendor_groups as vendor where vendor.cart_id = any (v_cart_ids));
  if v_left > 0 then
    perform checkout_raise_rows(null, 'cart_vendor_groups', v_rows + v_left, v_rows);
  end if;
  delete from cart_records as cart where cart.id = any (v_cart_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_cart_ids) then
    perform checkout_raise_rows(null, 'cart_records', cardinality(v_cart_ids), v_rows);
  end if;
  delete from cart_change_permits as permit where permit.cart_id = any (v_cart_ids);
  return cardinality(v_cart_ids);
end;
$$;

revoke execute on function cart_purge(interval, integer) from public;

comment on function cart_purge(interval, integer) is
  'Deletes carts, max_rows at most, and returns how many: call it until it returns 0. Converted carts go when the conversion is longer ago '
  'than the interval and all their orders have ended (rejected, delivered, closed, canceled, expired), quotes when they ran out that long '
  'ago; the orders stay, and their cart ids stay taken. A cart that is locked is left for the next call. For the owner. Raises 2BP01 naming a foreign key that '
  'would carry the deletion on to orders, OC005 for a null or negative interval, or max_rows below 1, OC007 if a trigger keeps a row from being deleted.';
