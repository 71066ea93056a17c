-- depends: pycheckout_0020_conversion_events_index
-- cost: moment cart_records, cart_vendor_groups, cart_items
--
-- A converted cart, its groups and its items never change again, whoever asks, and no cart takes the id of one that was
-- purged: its orders carry that. The only way past is a permit that
-- cart_purge() and checkout_erase() write for one cart and one transaction, in a table that is the owner's alone.
-- (Under Citus, triggers on distributed tables want citus.enable_unsafe_triggers, and tg_table_name would be that of a
-- shard: so each is told its table.) The triggers sleep until drop_checkout_groups ends the earlier checkout, which may still
-- write to a cart that it has converted.

do $$
begin
  perform checkout_migration_open();
  perform checkout_index_confirm('pycheckout_0020_conversion_events_index', 'idx_outbox_events_conversion', 'outbox_events', 'aggregate_id, event_type', true,
                                 '%checkout.vendor_orders_created%checkout.converted%');
end
$$;

create table if not exists cart_change_permits (
  cart_id uuid primary key,
  transaction_id xid8 not null default pg_current_xact_id()
);

do $$ begin perform checkout_table_private('cart_change_permits'); end $$;

-- The transaction is asked for where the row is written, beside the carts: on a node that a coordinator of Citus sends
-- the row to, the caller's is another one than the guards of the carts see.
create or replace function cart_permit_take_transaction()
returns trigger
language plpgsql
set search_path from current
as $$
begin
  new.transaction_id := pg_current_xact_id();
  return new;
end;
$$;

create or replace trigger cart_change_permits_of_their_transaction
before insert or update on cart_change_permits
for each row
execute function cart_permit_take_transaction('cart_change_permits');

create or replace function cart_refuse_change()
returns trigger
language plpgsql
security definer
set search_path from current
as $$
begin
  if exists (select from cart_change_permits where cart_id = old.id and transaction_id = pg_current_xact_id_if_assigned()) then
    if tg_op = 'DELETE' then
      return old;
    end if;
    return new;
  end if;

  raise exception 'cart % is converted and cannot be changed', old.id
    using errcode = 'OC009',
          detail = jsonb_build_object('cart_id', old.id, 'table', tg_argv[0], 'operation', lower(tg_op)),
          hint = 'Make a new cart; to remove old ones, call cart_purge().';
end;
$$;

-- Looks at the cart under FOR KEY SHARE: that waits for a checkout or an edit under way. Without it, an insert that
-- began before the conversion was committed would slip past.
create or replace function cart_part_refuse_change()
returns trigger
language plpgsql
security definer
set search_path from current
as $$
declare
  v_cart_ids uuid[];
  v_converted uuid;
begin
  if tg_op <> 'INSERT' then
    v_cart_ids := array[old.cart_id];
  end if;
  if tg_op <> 'DELETE' then
    v_cart_ids := v_cart_ids || new.cart_id;
  end if;

  -- Two statements: a condition on the status would be tested on the row as it was before the wait.
  perform from cart_records as cart where cart.id = any (v_cart_ids) order by cart.id for key share;
  select cart.id into v_converted from cart_records as cart where cart.id = any (v_cart_ids) and cart.status = 'converted' limit 1;

  if v_converted is not null
     and not exists (select from cart_change_permits where cart_id = v_converted and transaction_id = pg_current_xact_id_if_assigned())
  then
    raise exception 'cart % is converted and cannot be changed', v_converted
      using errcode = 'OC009',
            detail = jsonb_build_object('cart_id', v_converted, 'table', tg_argv[0], 'operation', lower(tg_op)),
            hint = 'Make a new cart; to remove old ones, call cart_purge().';
  end if;

  if tg_op = 'DELETE' then
    return old;
  end if;
  return new;
end;
$$;

create or replace function cart_refuse_truncate()
returns trigger
language plpgsql
security definer
set search_path from current
as $$
begin
  if exists (select from cart_records where status = 'converted') then
    raise exception 'table % cannot be truncated: converted carts cannot be changed', tg_argv[0]
      using errcode = 'OC009',
            detail = jsonb_build_object('table', tg_argv[0], 'operation', 'truncate'),
            hint = 'To remove old carts, call cart_purge().';
  end if;
  return null;
end;
$$;

-- The id of a cart that was purged while its orders stay. Were it quoted again, a retry under the old key would check the
-- new cart out, and orders of two carts would carry one id. A cart that is there is left to its unique key and to the
-- other triggers, so that ON CONFLICT goes on working; FOR KEY SHARE waits for a purge that is deleting it. Orders are only
-- written while their cart is there and locked, so none can come behind the look at them.
create or replace function cart_refuse_taken_id()
returns trigger
language plpgsql
security definer
set search_path from current
as $$
begin
  if not exists (select from vendor_orders where cart_id = new.id) then
    return new;
  end if;
  perform from cart_records where id = new.id for key share;
  if found then
    return new;
  end if;

  raise exception 'cart id % is taken: orders carry it', new.id
    using errcode = 'OC009',
          detail = jsonb_build_object('cart_id', new.id, 'table', tg_argv[0], 'operation', lower(tg_op)),
          hint = 'Make a new cart with an id of its own.';
end;
$$;

revoke execute on function cart_permit_take_transaction() from public;
revoke execute on function cart_refuse_taken_id() from public;
revoke execute on function cart_refuse_change() from public;
revoke execute on function cart_part_refuse_change() from public;
revoke execute on function cart_refuse_truncate() from public;
comment on function cart_permit_take_transaction() is 'Trigger: a permit is good for the transaction that writes it, whatever it says.';
comment on function cart_refuse_change() is 'Trigger: raises OC009 when a converted cart is updated or deleted.';
comment on function cart_part_refuse_change() is
  'Trigger: raises OC009 when a group or item of a converted cart is inserted, updated or deleted. Locks the cart row FOR KEY SHARE.';
comment on function cart_refuse_taken_id() is 'Trigger: raises OC009 when a cart is inserted with the id of a purged one whose orders carry it.';
comment on function cart_refuse_truncate() is 'Trigger: raises OC009 when a cart table with converted carts is truncated.';

do $$ begin perform checkout_migration_lock('cart_records', 'cart_vendor_groups', 'cart_items'); end $$;

create or replace trigger cart_records_converted_immutable
before update or delete on cart_records
for each row when (old.status = 'converted')
execute function cart_refuse_change('cart_records');

create or replace trigger cart_records_id_not_taken
before insert on cart_records
for each row
execute function cart_refuse_taken_id('cart_records');

create or replace trigger cart_vendor_groups_converted_immutable
before insert or update or delete on cart_vendor_groups
for each row
execute function cart_part_refuse_change('cart_vendor_groups');

create or replace trigger cart_items_converted_immutable
before insert or update or delete on cart_items
for each row
execute function cart_part_refuse_change('cart_items');

create or replace trigger cart_records_no_truncate
before truncate on cart_records
execute function cart_refuse_truncate('cart_records');

create or replace trigger cart_vendor_groups_no_truncate
before truncate on cart_vendor_groups
execute function cart_refuse_truncate('cart_vendor_groups');

create or replace trigger cart_items_no_truncate
before truncate on cart_items
execute function cart_refuse_truncate('cart_items');

do $$
begin
  perform checkout_migration_close('pycheckout_0021_converted_carts_immutable');
  perform checkout_comment(said.name, said.comment) from (values
    ('cart_change_permits',
     'Carts that the running transaction may change although they are converted. Written by cart_purge() and checkout_erase(); empty between '
     'transactions.'),
    ('cart_change_permits.cart_id', 'The cart.'),
    ('cart_change_permits.transaction_id', 'The only transaction that the permit is good for.')
  ) as said (name, comment);
end
$$;

do $$
declare
  v_trigger record;
begin
  -- a loop, because every trigger takes an ALTER TABLE
  for v_trigger in
    select ledger.table_name, ledger.name
      from checkout_ledger as ledger
     where ledger.migration = 'pycheckout_0021_converted_carts_immutable' and ledger.kind = 'trigger'
       and not exists (select from checkout_ledger as awake where awake.kind = 'enabled_trigger' and awake.name = ledger.name)
  loop
    execute format('alter table %I disable trigger %I', v_trigger.table_name, v_trigger.name);
  end loop;
end
$$;
