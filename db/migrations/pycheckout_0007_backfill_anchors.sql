-- depends: pycheckout_0006_watch_checkout_groups
-- transactional: false
-- cost: batches checkout_groups
--
-- Carts and orders take over from checkout_groups which anchor belongs to which cart. In batches with a commit
-- each, none of which waits for a row; a second run changes nothing. Batches that met a row of a host's transaction, and
-- what a checkout of the earlier system adds meanwhile, are queued for catch_up_anchors.

do $$
declare
  v_last uuid := '00000000-0000-0000-0000-000000000000';
  v_batch uuid[];
begin
  -- for the session, not the transaction: a commit would end it; yoyo opens a session for each migration
  perform checkout_migration_pin(for_transaction => false);
  if to_regclass('checkout_groups') is null then
    return;
  end if;

  loop
    select array_agg(anchor.id order by anchor.id) into v_batch
      from (select id from checkout_groups where id > v_last and cart_id is not null order by id limit 500) as anchor;
    exit when v_batch is null;

    begin
      update cart_records as cart
         set checkout_group_id = anchor.id
        from checkout_groups as anchor
       where anchor.id = any(v_batch) and cart.id = anchor.cart_id and cart.checkout_group_id is null;

      update vendor_orders as vendor_order
         set cart_id = anchor.cart_id
        from checkout_groups as anchor
       where anchor.id = any(v_batch) and vendor_order.checkout_group_id = anchor.id and vendor_order.cart_id is null;
    exception when lock_not_available then
      insert into checkout_groups_changed (id) select unnest(v_batch) on conflict (id) do nothing;
    end;

    v_last := v_batch[cardinality(v_batch)];
    commit;
  end loop;
end
$$;
