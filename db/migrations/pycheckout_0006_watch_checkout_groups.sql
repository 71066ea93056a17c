-- depends: pycheckout_0005_order_cart_id
-- cost: moment checkout_groups, vendor_orders
--
-- From here on the database notes by itself what a checkout of the earlier system writes, so that nothing has to
-- be searched for under the lock that ends it: a new order takes its cart from its group, and a group that comes, or
-- learns its cart, is queued for catch_up_anchors and drop_checkout_groups. What is there already is the next migration's.

do $$
begin
  perform checkout_migration_open();
  -- of a table that 0001 has just made there is no writer
  if to_regclass('checkout_groups') is null or checkout_is_ours('checkout_groups') then
    return;
  end if;

  create table if not exists checkout_groups_changed (
    id uuid primary key
  );

  create or replace function checkout_group_note_change()
  returns trigger
  language plpgsql
  security definer
  set search_path from current
  as $function$
  begin
    insert into checkout_groups_changed (id) values (new.id) on conflict (id) do nothing;
    return null;
  end;
  $function$;

  create or replace function vendor_order_take_cart()
  returns trigger
  language plpgsql
  security definer
  set search_path from current
  as $function$
  begin
    new.cart_id := (select anchor.cart_id from checkout_groups as anchor where anchor.id = new.checkout_group_id);
    return new;
  end;
  $function$;

  -- Takes rows of the queue, at most so many, and gives their carts the anchor and their orders the cart.
  create or replace function checkout_groups_catch_up(max_rows integer)
  returns integer
  language plpgsql
  as $function$
  declare
    v_ids constant uuid[] := array(
      select changed.id from checkout_groups_changed as changed order by changed.id limit checkout_groups_catch_up.max_rows for update);
  begin
    update cart_records as cart
       set checkout_group_id = anchor.id
      from checkout_groups as anchor
     where anchor.id = any (v_ids) and cart.id = anchor.cart_id and cart.checkout_group_id is null
       and not exists (select from cart_records as other where other.checkout_group_id = anchor.id);

    update vendor_orders as vendor_order
       set cart_id = anchor.cart_id
      from checkout_groups as anchor
     where anchor.id = any (v_ids) and vendor_order.checkout_group_id = anchor.id and vendor_order.cart_id is null;

    delete from checkout_groups_changed where id = any (v_ids);
    return cardinality(v_ids);
  end;
  $function$;

  revoke execute on function checkout_group_note_change() from public;
  revoke execute on function vendor_order_take_cart() from public;
  revoke execute on function checkout_groups_catch_up(integer) from public;
  comment on function checkout_group_note_change() is 'Trigger: queues a row of checkout_groups that came, or learnt its cart.';
  comment on function vendor_order_take_cart() is 'Trigger: an order of the earlier system takes its cart from checkout_groups.';
  comment on function checkout_groups_catch_up(integer) is 'Step of a migration: carts and orders take over what the queue says, at most so many rows.';

  perform checkout_migration_lock('checkout_groups', 'vendor_orders');

  create or replace trigger checkout_groups_note_change
  after insert or update of cart_id on checkout_groups
  for each row when (new.cart_id is not null)
  execute function checkout_group_note_change();

  create or replace trigger vendor_orders_take_cart
  before insert on vendor_orders
  for each row when (new.cart_id is null)
  execute function vendor_order_take_cart();
end
$$;

do $$
begin
  perform checkout_migration_close('pycheckout_0006_watch_checkout_groups');
  perform checkout_comment(said.name, said.comment) from (values
    ('checkout_groups_changed', 'Rows of checkout_groups that came, or learnt their cart, while the migrations ran; empty once the table is gone.'),
    ('checkout_groups_changed.id', 'Id of the group.')
  ) as said (name, comment);
  -- a queue: no loss
  update checkout_ledger set definition = 'false' where kind = 'table' and name = 'checkout_groups_changed';
end
$$;
