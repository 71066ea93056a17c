-- depends: pycheckout_0006_watch_checkout_groups
-- transactional: false
--
-- PF-168: carts and orders take over from checkout_groups which anchor belongs to which cart. In batches with a commit
-- each; a second run changes nothing. What a checkout of the earlier system adds meanwhile, migration 0029 catches.

do $$
declare
  v_last uuid := '00000000-0000-0000-0000-000000000000';
  v_batch uuid[];
begin
  -- for the session, not the transaction: a commit would end it; yoyo opens a session for each migration
  perform set_config('search_path', quote_ident(current_schema()) || ', pg_temp', false);
  if to_regclass('checkout_groups') is null then
    return;
  end if;

  -- Groups of transactions from here on are the ones that this backfill may not see.
  insert into checkout_ledger (migration, kind, name, definition)
  select 'pycheckout_0007_backfill_anchors', 'backfilled_before', 'checkout_groups', pg_snapshot_xmin(pg_current_snapshot())::text
   where not exists (select from checkout_ledger where migration = 'pycheckout_0007_backfill_anchors');
  commit;

  loop
    select array_agg(anchor.id order by anchor.id) into v_batch
      from (select id from checkout_groups where id > v_last and cart_id is not null order by id limit 5000) as anchor;
    exit when v_batch is null;

    update cart_records as cart
       set checkout_group_id = anchor.id
      from checkout_groups as anchor
     where anchor.id = any(v_batch) and cart.id = anchor.cart_id and cart.checkout_group_id is null;

    update vendor_orders as vendor_order
       set cart_id = anchor.cart_id
      from checkout_groups as anchor
     where anchor.id = any(v_batch) and vendor_order.checkout_group_id = anchor.id and vendor_order.cart_id is null;

    v_last := v_batch[cardinality(v_batch)];
    commit;
  end loop;
end
$$;
