-- The schema of the earlier system. On an empty schema it builds that system's tables; on a database that already
-- has them it changes nothing, so that every later migration starts from the same place.
--
-- It also brings the ledger. With IF NOT EXISTS, a rollback twin cannot tell a column of the host from one that the
-- migration added: the ledger remembers what each migration really created, and a twin drops that alone.

-- Refuse before any change what the later migrations could not carry over.
do $preflight$
declare
  v_schema constant text := current_schema();
  v_missing text;
  v_conflicts jsonb;
begin
  if v_schema is null then
    raise exception 'no schema of the search_path exists'
      using errcode = 'invalid_schema_name', hint = 'Create the schema first, or name another one.';
  end if;
  perform set_config('search_path', quote_ident(v_schema) || ', pg_temp', true);

  -- The functions would refuse it in the end, when the earlier checkout is gone.
  if exists (select from pg_namespace cross join aclexplode(nspacl) as acl
              where nspname = v_schema and acl.grantee = 0 and acl.privilege_type = 'CREATE') then
    raise exception 'PUBLIC may create objects in schema %, and so slip code into functions that run as their owner', v_schema
      using errcode = 'insufficient_privilege', hint = format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC;', v_schema);
  end if;

  with required (table_name, columns) as (values
    ('cart_records', '{id,buyer_store_id,status,shipping_address,checkout_group_id,currency,valid_until,subtotal_cents,discounts_cents,'
                     'total_cents,ad_tokens,created_at,updated_at}'::text[]),
    ('cart_vendor_groups', '{id,cart_id,vendor_store_id,status,subtotal_cents,total_cents,promo,warnings,created_at,updated_at}'),
    ('cart_items', '{id,cart_id,product_id,vendor_store_id,quantity,moq,max_qty,unit_price_cents,line_subtotal_cents,'
                   'applied_volume_discount,warnings,status,created_at,updated_at}'),
    ('vendor_orders', '{id,checkout_group_id,buyer_store_id,vendor_store_id,status,subtotal_cents,tax_cents,transport_fee_cents,'
                      'total_cents,balance_due_cents,notes,created_at,updated_at}'),
    ('order_line_items', '{id,order_id,product_id,name,category,unit,unit_price_cents,qty,discount_cents,total_cents,status,notes,created_at,updated_at}'),
    ('payment_intents', '{id,order_id,method,status,amount_cents,created_at,updated_at}'),
    ('inventory_items', '{product_id,available_qty,reserved_qty,updated_at}'),
    ('outbox_events', '{id,event_type,aggregate_type,aggregate_id,payload,created_at,published_at,attempt_count,last_error}')
  ), missing (name) as (
    select table_name
      from required
     where to_regclass(table_name) is null and (to_regclass('cart_records') is not null or to_regclass('vendor_orders') is not null)
     union all
    select format('%s.%s', table_name, column_name)
      from required
     cross join unnest(columns) as column_name
     where to_regclass(table_name) is not null
       and not exists (select from pg_attribute
                        where attrelid = to_regclass(table_name) and attname = column_name and not attisdropped)
  )
  select string_agg(name, ', ' order by name) into v_missing from missing;

  if v_missing is not null then
    raise exception 'this database is too old for pycheckout: it has no %', v_missing
      using errcode = 'feature_not_supported',
            hint = 'Bring the earlier system to its last release first, or install into an empty schema.';
  end if;

  if to_regclass('cart_records') is null then
    return;
  end if;

  -- One anchor a cart and one cart an anchor, whichever table says so.
  if to_regclass('checkout_groups') is not null then
    with pairs as (
      select id as cart_id, checkout_group_id from cart_records where checkout_group_id is not null
       union
      select cart_id, id from checkout_groups where cart_id is not null
    ), conflicts as (
      select jsonb_build_object('checkout_group_id', checkout_group_id, 'cart_ids', jsonb_agg(cart_id order by cart_id)) as row
        from pairs group by checkout_group_id having count(*) > 1
       union all
      select jsonb_build_object('cart_id', cart_id, 'checkout_group_ids', jsonb_agg(checkout_group_id order by checkout_group_id))
        from pairs group by cart_id having count(*) > 1
    )
    select jsonb_agg(row) into v_conflicts from (select row from conflicts limit 20) as first_conflicts;
  else
    with conflicts as (
      select jsonb_build_object('checkout_group_id', checkout_group_id, 'cart_ids', jsonb_agg(id order by id)) as row
        from cart_records where checkout_group_id is not null group by checkout_group_id having count(*) > 1
    )
    select jsonb_agg(row) into v_conflicts from (select row from conflicts limit 20) as first_conflicts;
  end if;

  if v_conflicts is not null then
    raise exception 'carts and checkout groups are not one to one: %', v_conflicts
      using errcode = 'unique_violation', detail = v_conflicts::text,
            hint = 'Decide which pairs are right, correct the others, and apply again.';
  end if;
end
$preflight$;

create table if not exists checkout_ledger (
  id bigserial primary key,
  migration text not null,
  kind text not null,
  table_name text,
  name text not null,
  definition text,
  created_at timestamptz not null default now()
);

comment on table checkout_ledger is
  'What each pycheckout migration created or removed in this database; its rollback twin undoes that and nothing else.';
comment on column checkout_ledger.id is 'Order of the entries: a twin undoes them newest first.';
comment on column checkout_ledger.migration is 'Migration that wrote the entry.';
comment on column checkout_ledger.kind is 'What was created, as in checkout_objects; or a note, such as dropped_constraint or kept_index.';
comment on column checkout_ledger.table_name is 'Table that it belongs to; null for what belongs to none.';
comment on column checkout_ledger.name is 'Its name; of a function its signature.';
comment on column checkout_ledger.definition is
  'Of a table or column: the SQL condition of the rows that would lose something if it were dropped. Of a note: what its twin needs. Else null.';
comment on column checkout_ledger.created_at is 'When the migration ran.';

create or replace view checkout_objects as
select 'type' as kind, null::text as table_name, type.typname::text as name
  from pg_type as type
  left join pg_class as class on class.oid = type.typrelid
 where type.typnamespace = quote_ident(current_schema())::regnamespace
   and (type.typtype = 'e' or class.relkind = 'c')
 union all
select case relkind when 'v' then 'view' else 'table' end, null, relname
  from pg_class
 where relnamespace = quote_ident(current_schema())::regnamespace and relkind in ('r', 'p', 'v')
 union all
select 'column', class.relname, attribute.attname
  from pg_attribute as attribute
  join pg_class as class on class.oid = attribute.attrelid
 where class.relnamespace = quote_ident(current_schema())::regnamespace and class.relkind in ('r', 'p')
   and attribute.attnum > 0 and not attribute.attisdropped
 union all
select 'constraint', class.relname, con.conname
  from pg_constraint as con
  join pg_class as class on class.oid = con.conrelid
 where class.relnamespace = quote_ident(current_schema())::regnamespace and con.contype not in ('n', 't')
 union all
select 'index', class.relname, index_class.relname
  from pg_index as index
  join pg_class as index_class on index_class.oid = index.indexrelid
  join pg_class as class on class.oid = index.indrelid
 where class.relnamespace = quote_ident(current_schema())::regnamespace
   and not exists (select from pg_constraint where conindid = index.indexrelid)
 union all
select 'function', null, oid::regprocedure::text
  from pg_proc
 where pronamespace = quote_ident(current_schema())::regnamespace
 union all
select 'trigger', class.relname, trigger.tgname
  from pg_trigger as trigger
  join pg_class as class on class.oid = trigger.tgrelid
 where class.relnamespace = quote_ident(current_schema())::regnamespace and not trigger.tgisinternal;

comment on view checkout_objects is 'Objects of the schema, as the migration ledger names them.';
comment on column checkout_objects.kind is 'type, table, view, column, constraint, index, function or trigger.';
comment on column checkout_objects.table_name is 'Table that it belongs to; null for what belongs to none.';
comment on column checkout_objects.name is 'Its name; of a function its signature.';

-- Pins the schema and bounds the wait for locks until the migration's transaction ends. Without the bound, a lock
-- request that waits behind a long transaction makes every later query of the table wait behind it.
create or replace function checkout_migration_pin()
returns void
language plpgsql
as $$
begin
  perform set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);
  if current_setting('lock_timeout') = '0' then
    perform set_config('lock_timeout', '5s', true);
  end if;
end;
$$;

create or replace function checkout_migration_open()
returns void
language plpgsql
as $$
begin
  perform checkout_migration_pin();
  create temporary table checkout_objects_before on commit drop as select * from checkout_objects;
end;
$$;

create or replace function checkout_migration_close(migration text)
returns void
language plpgsql
as $$
begin
  insert into checkout_ledger (migration, kind, table_name, name, definition)
  select checkout_migration_close.migration, object.kind, object.table_name, object.name,
         case object.kind when 'table' then 'true' when 'column' then
           (select case when pg_get_expr(def.adbin, def.adrelid) is null then format('%I is not null', object.name)
                        else format('%I is distinct from %s', object.name, pg_get_expr(def.adbin, def.adrelid)) end
              from pg_attribute as attribute
              left join pg_attrdef as def on def.adrelid = attribute.attrelid and def.adnum = attribute.attnum
             where attribute.attrelid = to_regclass(quote_ident(object.table_name)) and attribute.attname = object.name)
         end
    from (select * from checkout_objects except select * from checkout_objects_before) as object
   where object.table_name is null   -- what hangs on a new table goes with it
      or exists (select from checkout_objects_before as before
                  where before.kind = 'table' and before.name = object.table_name)
   order by array_position('{type,table,column,constraint,index,function,trigger,view}', object.kind),
            to_regclass(quote_ident(object.name))::oid, object.name;   -- tables in the order of their creation
  drop table checkout_objects_before;
end;
$$;

-- Raises if rows would be lost by undoing a migration, or all of them.
create or replace function checkout_migration_check(migration text default null)
returns void
language plpgsql
as $$
declare
  v_object checkout_ledger;
  v_table text;
  v_loses boolean;
begin
  perform checkout_migration_pin();
  -- a loop, because every object takes a query of its own
  for v_object in
    select * from checkout_ledger as ledger
     where ledger.kind in ('table', 'column')
       and (ledger.migration = checkout_migration_check.migration or checkout_migration_check.migration is null)
     order by ledger.id desc
  loop
    v_table := coalesce(v_object.table_name, v_object.name);
    begin
      execute format('select exists (select from %I where %s)', v_table, v_object.definition) into v_loses;
    exception when undefined_table then
      -- A later migration renamed what the condition names. Once that is undone, this migration's own check finds it.
      continue when checkout_migration_check.migration is null;
      raise;
    end;
    if v_loses then
      raise exception 'rolling back % would lose %', v_object.migration,
                      case v_object.kind when 'table' then format('the rows of table %I', v_table)
                                         else format('what %I.%I holds', v_table, v_object.name) end
        using errcode = 'object_in_use',
              detail = format('SELECT * FROM %I WHERE %s;', v_table, v_object.definition),
              hint = 'Save these rows and clear them, if they are really no longer needed.';
    end if;
  end loop;
end;
$$;

-- Undoes what the ledger says of a migration, newest first. Raises, and so changes nothing, if a row would be lost.
create or replace function checkout_migration_undo(migration text)
returns void
language plpgsql
as $$
declare
  v_object checkout_ledger;
begin
  perform checkout_migration_pin();
  -- The locks come before the check, or a row could still slip in. Loops, because every object takes a statement.
  for v_object in
    select * from checkout_ledger as ledger
     where ledger.migration = checkout_migration_undo.migration and ledger.kind in ('table', 'column')
     order by ledger.id
  loop
    execute format('lock table %I in access exclusive mode', coalesce(v_object.table_name, v_object.name));
  end loop;
  perform checkout_migration_check(checkout_migration_undo.migration);

  for v_object in
    select * from checkout_ledger as ledger
     where ledger.migration = checkout_migration_undo.migration
     order by ledger.id desc
  loop
    case v_object.kind
      when 'type' then execute format('drop type if exists %I', v_object.name);
      when 'table' then execute format('drop table if exists %I', v_object.name);
      when 'view' then execute format('drop view if exists %I', v_object.name);
      when 'function' then execute format('drop function if exists %s', v_object.name);
      when 'index' then execute format('drop index if exists %I', v_object.name);
      when 'column' then execute format('alter table %I drop column if exists %I', v_object.table_name, v_object.name);
      when 'constraint' then execute format('alter table %I drop constraint if exists %I', v_object.table_name, v_object.name);
      when 'trigger' then execute format('drop trigger if exists %I on %I', v_object.name, v_object.table_name);
      when 'dropped_constraint' then   -- its table may be in another schema: the name is quoted already
        execute format('alter table %s add constraint %I %s', v_object.table_name, v_object.name, v_object.definition);
      else null;   -- a note, such as an index that was there before
    end case;
  end loop;
  delete from checkout_ledger as ledger where ledger.migration = checkout_migration_undo.migration;
end;
$$;

-- The type of a column as SQL: a column that joins existing ones takes the type that its counterpart has there.
create or replace function checkout_column_type(table_name text, column_name text)
returns text
language sql
stable
as $$
  select format_type(attribute.atttypid, attribute.atttypmod)
    from pg_attribute as attribute
   where attribute.attrelid = to_regclass(quote_ident(checkout_column_type.table_name))
     and attribute.attname = checkout_column_type.column_name
     and not attribute.attisdropped;
$$;

-- Whether a migration of ours created a table, a type, or a column; false for what the host brought.
create or replace function checkout_is_ours(table_name text, column_name text default null)
returns boolean
language sql
stable
as $$
  select exists (
    select from checkout_ledger as ledger
     where (ledger.kind in ('table', 'type') and ledger.name = checkout_is_ours.table_name)
        or (ledger.kind = 'column' and ledger.table_name = checkout_is_ours.table_name
            and ledger.name = checkout_is_ours.column_name));
$$;

-- A new table is open to whom the owner's default privileges say (ALTER DEFAULT PRIVILEGES); this one is the owner's alone.
create or replace function checkout_table_private(table_name text)
returns void
language plpgsql
as $$
declare
  v_grantee text;
begin
  -- a loop, because every role takes a REVOKE
  for v_grantee in
    select distinct case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end
      from pg_class as class
     cross join aclexplode(class.relacl) as acl
     where class.oid = quote_ident(checkout_table_private.table_name)::regclass and acl.grantee <> class.relowner
  loop
    execute format('revoke all on table %I from %s cascade', checkout_table_private.table_name, v_grantee);
  end loop;
end;
$$;

-- A comment on a table, type or table.column that is ours; one of the host keeps what it has, or goes without.
create or replace function checkout_comment(name text, comment text)
returns void
language plpgsql
as $$
declare
  v_name constant text := split_part(checkout_comment.name, '.', 1);
  v_column constant text := nullif(split_part(checkout_comment.name, '.', 2), '');
  v_kind text := 'column';
begin
  if not checkout_is_ours(v_name, v_column) then
    return;
  elsif v_column is null then
    select ledger.kind into v_kind from checkout_ledger as ledger where ledger.kind in ('table', 'type') and ledger.name = v_name;
  end if;
  execute format('comment on %s %s is %L', v_kind, concat_ws('.', quote_ident(v_name), quote_ident(v_column)), checkout_comment.comment);
end;
$$;

-- Before CREATE INDEX CONCURRENTLY IF NOT EXISTS: a failed build leaves an invalid index, which IF NOT EXISTS would
-- take for done. An index that is there and valid is noted as the host's; any other is ours, and goes with the rollback
-- of the migration that calls this.
create or replace function checkout_index_prepare(migration text, table_name text, index_name text)
returns void
language plpgsql
as $$
declare
  v_valid constant boolean := (select indisvalid from pg_index where indexrelid = to_regclass(quote_ident(checkout_index_prepare.index_name)));
begin
  insert into checkout_ledger (migration, kind, table_name, name)
  select checkout_index_prepare.migration, case when v_valid then 'kept_index' else 'index' end,
         checkout_index_prepare.table_name, checkout_index_prepare.index_name
   where not exists (select from checkout_ledger as ledger
                      where ledger.kind in ('kept_index', 'index') and ledger.name = checkout_index_prepare.index_name);
  if not v_valid then
    execute format('drop index %I', checkout_index_prepare.index_name);
  end if;
end;
$$;

-- After it: raises unless the index is valid and what it must be. A predicate may be missing, but not be another one.
create or replace function checkout_index_confirm(
  migration text, index_name text, table_name text, columns text, must_be_unique boolean, predicate_like text default null)
returns void
language plpgsql
as $$
declare
  v_oid constant oid := to_regclass(quote_ident(checkout_index_confirm.index_name));
  v_found record;
  v_is_right boolean;
begin
  select index.indisvalid as is_valid, index.indisunique as is_unique, class.relname as table_name,
         pg_get_expr(index.indpred, index.indrelid, true) as predicate,
         (select string_agg(pg_get_indexdef(index.indexrelid, position, true), ', ' order by position)
            from generate_series(1, index.indnkeyatts) as position) as columns
    into v_found
    from pg_index as index
    join pg_class as class on class.oid = index.indrelid
   where index.indexrelid = v_oid;

  v_is_right := coalesce(v_found.table_name = checkout_index_confirm.table_name
                         and v_found.columns = checkout_index_confirm.columns
                         and v_found.is_unique = checkout_index_confirm.must_be_unique
                         and (v_found.predicate is null or v_found.predicate like checkout_index_confirm.predicate_like), false);
  if not v_is_right or not v_found.is_valid then
    raise exception 'index % is missing, invalid or not what it must be', checkout_index_confirm.index_name
      using errcode = 'object_not_in_prerequisite_state',
            detail = format('Found: %s. Expected: the one of migration %s, a valid%s index on %s (%s).',
                            coalesce(pg_get_indexdef(v_oid) || case when v_found.is_valid then '' else ' (invalid)' end, 'no such index'),
                            checkout_index_confirm.migration,
                            case when checkout_index_confirm.must_be_unique then ' unique' else '' end,
                            checkout_index_confirm.table_name, checkout_index_confirm.columns),
            hint = case when v_is_right then format('REINDEX INDEX CONCURRENTLY %s; then apply again.', v_oid::regclass)
                        else format('Drop or rename what has its name, run the statement of migration %s, and apply again.',
                                    checkout_index_confirm.migration) end;
  end if;
end;
$$;

do $$
declare
  v_step record;
begin
  -- a loop, because every function takes its statements
  for v_step in
    select * from (values
      ('checkout_migration_pin()', 'Step of a migration: pins the schema and bounds lock waits, until the transaction ends.'),
      ('checkout_migration_open()', 'Step of a migration: pins the schema, bounds lock waits, notes which objects exist.'),
      ('checkout_migration_close(text)', 'Step of a migration: writes to the ledger what it created.'),
      ('checkout_migration_check(text)', 'Raises if rows would be lost by rolling back a migration, or all of them.'),
      ('checkout_migration_undo(text)', 'Body of a rollback twin: drops what the migration created; raises if rows would be lost.'),
      ('checkout_column_type(text, text)', 'Type of a column, as SQL.'),
      ('checkout_comment(text, text)', 'Step of a migration: comments a table, type or table.column, unless it is the host''s.'),
      ('checkout_is_ours(text, text)', 'Whether a migration of pycheckout created this table, type or column.'),
      ('checkout_table_private(text)', 'Step of a migration: takes every right on a table from everybody but its owner.'),
      ('checkout_index_prepare(text, text, text)', 'Step of a migration: drops an invalid index of this name, notes a valid one as the host''s.'),
      ('checkout_index_confirm(text, text, text, text, boolean, text)', 'Step of a migration: raises unless the index is valid and right.')
    ) as step (signature, comment)
  loop
    execute format('revoke execute on function %s from public', v_step.signature);
    execute format('comment on function %s is %L', v_step.signature, v_step.comment);
  end loop;
  perform checkout_migration_open();
end
$$;

do $types$
begin
  if to_regtype('address_t') is null then
    create type address_t as (line1 text, line2 text, city text, state text, postal_code text, country text,
                              lat double precision, lng double precision);
  end if;
  if to_regtype('cart_status') is null then
    create type cart_status as enum ('active', 'converted');
  end if;
  if to_regtype('vendor_group_status') is null then
    create type vendor_group_status as enum ('ok', 'invalid');
  end if;
  if to_regtype('cart_item_status') is null then
    create type cart_item_status as enum ('ok', 'not_available', 'invalid');
  end if;
  if to_regtype('vendor_order_status') is null then
    create type vendor_order_status as enum ('created_pending', 'accepted', 'partially_accepted', 'rejected', 'fulfilled',
      'partially_fulfilled', 'hold', 'in_transit', 'delivered', 'closed', 'canceled', 'expired');
  end if;
  if to_regtype('line_item_status') is null then
    create type line_item_status as enum ('pending', 'accepted', 'rejected', 'fulfilled', 'hold');
  end if;
  if to_regtype('payment_method') is null then
    create type payment_method as enum ('cash', 'ach');
  end if;
  if to_regtype('payment_status') is null then
    create type payment_status as enum ('unpaid', 'pending', 'settled', 'paid');
  end if;
end
$types$;

create table if not exists cart_records (
  id uuid primary key default gen_random_uuid(),
  buyer_store_id uuid not null,
  checkout_group_id uuid,
  status cart_status not null default 'active',
  shipping_address address_t,
  currency text not null default 'USD',
  valid_until timestamptz not null,
  subtotal_cents bigint not null default 0,
  discounts_cents bigint not null default 0,
  total_cents bigint not null default 0,
  ad_tokens text[],
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table if not exists cart_vendor_groups (
  id uuid primary key default gen_random_uuid(),
  cart_id uuid not null constraint cart_vendor_groups_cart_fk references cart_records (id) on delete cascade,
  vendor_store_id uuid not null,
  status vendor_group_status not null default 'ok',
  subtotal_cents bigint not null default 0,
  discounts_cents bigint,
  total_cents bigint not null default 0,
  promo jsonb,
  warnings jsonb not null default '[]',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint cart_vendor_groups_one_per_vendor unique (cart_id, vendor_store_id)
);

do $$
begin
  -- the condition asks for the table, since another index of an existing one may do the same work under another name
  if to_regclass('cart_items') is null then
    create table cart_items (
      id uuid primary key default gen_random_uuid(),
      cart_id uuid not null constraint cart_items_cart_fk references cart_records (id) on delete cascade,
      product_id uuid not null,
      vendor_store_id uuid not null,
      title text not null default '',
      category text not null default '',
      unit text not null default '',
      quantity integer not null,
      moq integer not null default 1,
      max_qty integer,
      unit_price_cents bigint not null,
      line_subtotal_cents bigint not null,
      applied_volume_discount jsonb,
      warnings jsonb not null default '[]',
      status cart_item_status not null default 'ok',
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now(),
      constraint cart_items_orderable_quantity check (quantity > 0 or status <> 'ok'),
      constraint cart_items_price_not_negative check (unit_price_cents >= 0 and line_subtotal_cents >= 0)
    );
    create index idx_cart_items_cart_id on cart_items (cart_id);
  end if;

  -- a database without it whose orders are there has done its part of PF-168 already
  if to_regclass('checkout_groups') is null and to_regclass('vendor_orders') is null then
    create table checkout_groups (
      id uuid primary key default gen_random_uuid(),
      buyer_store_id uuid not null,
      cart_id uuid constraint checkout_groups_cart_fk references cart_records (id) on delete set null,
      attributed_ad_click_id uuid,
      created_at timestamptz not null default now()
    );
  end if;
end
$$;

create table if not exists vendor_orders (
  id uuid primary key default gen_random_uuid(),
  checkout_group_id uuid not null constraint vendor_orders_checkout_fk references checkout_groups (id) on delete cascade,
  buyer_store_id uuid not null,
  vendor_store_id uuid not null,
  status vendor_order_status not null default 'created_pending',
  subtotal_cents bigint not null,
  discount_cents bigint not null default 0,
  tax_cents bigint not null default 0,
  transport_fee_cents bigint not null default 0,
  total_cents bigint not null,
  balance_due_cents bigint not null default 0,
  notes text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint vendor_orders_one_per_vendor unique (checkout_group_id, vendor_store_id),
  constraint vendor_orders_buyer_is_not_vendor check (buyer_store_id <> vendor_store_id)
);

do $$
begin
  if to_regclass('order_line_items') is null then
    create table order_line_items (
      id uuid primary key default gen_random_uuid(),
      order_id uuid not null constraint order_line_items_order_fk references vendor_orders (id) on delete cascade,
      product_id uuid,
      name text not null,
      category text not null,
      unit text not null,
      unit_price_cents bigint not null,
      qty integer not null,
      discount_cents bigint not null default 0,
      total_cents bigint not null,
      status line_item_status not null default 'pending',
      notes text,
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now()
    );
    create index idx_order_line_items_order_id on order_line_items (order_id);
  end if;
end
$$;

create table if not exists payment_intents (
  id uuid primary key default gen_random_uuid(),
  order_id uuid not null constraint payment_intents_order_fk references vendor_orders (id) on delete cascade,
  method payment_method not null default 'cash',
  status payment_status not null default 'unpaid',
  amount_cents bigint not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint payment_intents_one_per_order unique (order_id)
);

create table if not exists inventory_items (
  product_id uuid primary key,
  available_qty integer not null default 0 constraint inventory_items_available_not_negative check (available_qty >= 0),
  reserved_qty integer not null default 0 constraint inventory_items_reserved_not_negative check (reserved_qty >= 0),
  updated_at timestamptz not null default now()
);

-- A payload of up to 8 kB stays uncompressed: compressing it would cost the checkout more than the space is worth.
create table if not exists outbox_events (
  id uuid primary key default gen_random_uuid(),
  event_type text not null,
  aggregate_type text not null,
  aggregate_id uuid not null,
  payload jsonb not null,
  created_at timestamptz not null default now(),
  published_at timestamptz,
  attempt_count integer not null default 0,
  last_error text
) with (toast_tuple_target = 8160);

do $$
begin
  perform checkout_migration_close('pycheckout_0001_baseline');
  -- those of columns that some releases of the earlier system lack, or call otherwise, come with 0002 and 0010
  perform checkout_comment(said.name, said.comment) from (values
    ('address_t', 'A postal address. The checkout confirms none without line1, city and country; checkout_erase() leaves one of nulls.'),
    ('address_t.line1', 'Street and number; the checkout requires it.'),
    ('address_t.line2', 'Suite, floor or the like; null: none.'),
    ('address_t.city', 'City; the checkout requires it.'),
    ('address_t.state', 'State or province; null: none.'),
    ('address_t.postal_code', 'Postal code; null: none.'),
    ('address_t.country', 'Country, as the host writes it; the checkout requires it.'),
    ('address_t.lat', 'Latitude in degrees, -90 to 90; null: not known.'),
    ('address_t.lng', 'Longitude in degrees, -180 to 180; null: not known.'),
    ('cart_status', 'active: a quote that can be changed and checked out. converted: it became orders and changes no more.'),
    ('vendor_group_status', 'ok: its ok items are ordered. invalid: the vendor cannot sell, and none is.'),
    ('cart_item_status', 'ok: the item is ordered, if its vendor group is ok. not_available, invalid: it is not, and counts in no subtotal.'),
    ('vendor_order_status',
     'The checkout and the order functions write created_pending, partially_accepted, rejected, fulfilled, partially_fulfilled and canceled; '
     'the rest is the host''s.'),
    ('line_item_status', 'pending, accepted and hold: the line holds stock. rejected: it gave it back, or got none. fulfilled: its goods have left.'),
    ('payment_method', 'How an order is paid. The checkout takes any value of this type.'),
    ('payment_status', 'unpaid: nothing happened yet, and the amount follows the order. The host writes the others.'),
    ('cart_records',
     'Carts, each with its quote. The quote writes them until the checkout converts them; then only cart_purge() and checkout_erase() touch '
     'them.'),
    ('cart_records.id', 'Id of the cart, from the quote.'),
    ('cart_records.buyer_store_id', 'Store that buys, an id of the host.'),
    ('cart_records.checkout_group_id', 'Anchor of the checkout that converted this cart; null before.'),
    ('cart_records.status', 'active from the quote, converted from the checkout.'),
    ('cart_records.shipping_address', 'From the quote, then the one that the checkout confirmed; checkout_erase() blanks it. Null: none yet.'),
    ('cart_records.currency', 'ISO 4217 code, from the quote; every _cents column of the cart counts its minor units.'),
    ('cart_records.valid_until', 'When the quote runs out: from then on the checkout refuses the cart (OC003).'),
    ('cart_records.subtotal_cents', 'Subtotal that the buyer was quoted, minor units: the sum over the vendor groups that are ok.'),
    ('cart_records.discounts_cents', 'Discounts that the buyer was quoted, promotions included, minor units: subtotal_cents - total_cents.'),
    ('cart_records.total_cents', 'Total that the buyer was quoted, minor units: the sum over the vendor groups that are ok.'),
    ('cart_records.ad_tokens', 'Signed ad tokens (JWS) that came with the quote; the checkout attributes orders and lines by them. Null: none.'),
    ('cart_records.created_at', 'When the cart was first written.'),
    ('cart_records.updated_at', 'When the quote, the checkout or checkout_erase() last wrote the cart.'),
    ('cart_vendor_groups', 'What a cart holds of one vendor, and what that comes to. Written by the quote; the checkout reads it.'),
    ('cart_vendor_groups.id', 'Id of the group; the order that the checkout makes of it takes the same.'),
    ('cart_vendor_groups.cart_id', 'Cart that it is a part of.'),
    ('cart_vendor_groups.vendor_store_id', 'Store that sells, an id of the host.'),
    ('cart_vendor_groups.status', 'From the quote: whether this vendor''s items are ordered.'),
    ('cart_vendor_groups.subtotal_cents',
     'Sum of line_subtotal_cents over its ok items, minor units; another figure in a group that is ordered is OC007.'),
    ('cart_vendor_groups.total_cents',
     'What the buyer pays this vendor, minor units. What its discount has beyond those of the lines is the promotion''s share.'),
    ('cart_vendor_groups.promo', 'Promotion of this vendor: {code, amount_cents}, copied to the order. Null: none.'),
    ('cart_vendor_groups.warnings', 'What the quote has to say of this vendor: [{type, message}], copied to the order.'),
    ('cart_vendor_groups.created_at', 'When the quote wrote the group; cart_put() writes all of a cart anew.'),
    ('cart_vendor_groups.updated_at', 'When the quote last changed the group.'),
    ('cart_items', 'Lines of a cart, as quoted. Written by the quote; the checkout copies them to order_line_items, to the cent.'),
    ('cart_items.id', 'Id of the line; the order line that the checkout makes of it takes the same.'),
    ('cart_items.cart_id', 'Cart that it is a part of.'),
    ('cart_items.product_id', 'Product, an id of the host; its stock stands in inventory_items.'),
    ('cart_items.vendor_store_id', 'Store that sells, an id of the host; an ok item needs that vendor''s group in its cart.'),
    ('cart_items.quantity', 'Units that the buyer wants, at least 1 on an ok item.'),
    ('cart_items.moq', 'Minimum order quantity in units, as the quote knew it; the checkout does not check it.'),
    ('cart_items.max_qty', 'Largest quantity in units, as the quote knew it; the checkout does not check it. Null: no limit.'),
    ('cart_items.unit_price_cents', 'Price of one unit, minor units: before the volume discount on a gross line, after it on a net one.'),
    ('cart_items.line_subtotal_cents',
     'Price of the line, minor units: before line_discounts_cents on a gross line, with the volume discount in it on a net one.'),
    ('cart_items.applied_volume_discount', 'Describes the volume discount that the amounts have in them: {label, amount_cents}. Null: none.'),
    ('cart_items.warnings', 'What the quote has to say of this line: [{type, message}], copied to the order line.'),
    ('cart_items.status', 'From the quote: whether this line is ordered.'),
    ('cart_items.created_at', 'When the quote wrote the line; cart_put() writes all of a cart anew.'),
    ('cart_items.updated_at', 'When the quote last changed the line.'),
    ('vendor_orders', 'Orders, one a vendor and checkout. Written by the checkout and the order functions; the host moves states of its own.'),
    ('vendor_orders.id', 'Id of the order; from the checkout that of the vendor group.'),
    ('vendor_orders.checkout_group_id', 'Anchor: the orders of one checkout share it with their cart.'),
    ('vendor_orders.buyer_store_id', 'Store that buys, an id of the host.'),
    ('vendor_orders.vendor_store_id', 'Store that sells, an id of the host.'),
    ('vendor_orders.status', 'From the checkout created_pending, or rejected if every line was; then from the order functions and the host.'),
    ('vendor_orders.subtotal_cents', 'Sum of line_subtotal_cents over its lines that are not rejected, minor units.'),
    ('vendor_orders.tax_cents', 'Tax, minor units: 0 from the checkout; a host that sets it adds it to total_cents.'),
    ('vendor_orders.transport_fee_cents', 'Transport, minor units: 0 from the checkout; a host that sets it adds it to total_cents.'),
    ('vendor_orders.total_cents', 'subtotal_cents - discounts_cents + tax_cents + transport_fee_cents, minor units.'),
    ('vendor_orders.balance_due_cents',
     'What is still to be paid, minor units: total_cents at first; the host takes off payments, the order functions what is rejected.'),
    ('vendor_orders.notes', 'The host''s notes; the checkout writes none, checkout_erase() deletes them. Null: none.'),
    ('vendor_orders.created_at', 'When the checkout converted the cart.'),
    ('vendor_orders.updated_at',
     'When the checkout, an order function or checkout_erase() last wrote the order; the host sets it for its own changes.'),
    ('order_line_items',
     'Lines of the orders, copies of their cart lines. Written by the checkout and the order functions; the host moves states of its own.'),
    ('order_line_items.id', 'Id of the line; from the checkout that of the cart line.'),
    ('order_line_items.order_id', 'Order that it is a part of.'),
    ('order_line_items.product_id',
     'Product, an id of the host. The checkout always writes it; null: the host took it away, and no stock goes back.'),
    ('order_line_items.name', 'Name of the product: the title of the cart line, or product_id where that is empty.'),
    ('order_line_items.category', 'Category of the cart line.'),
    ('order_line_items.unit', 'Unit of the cart line.'),
    ('order_line_items.unit_price_cents', 'Price of one unit, minor units, as on the cart line.'),
    ('order_line_items.qty', 'Units ordered; a rejected line keeps them.'),
    ('order_line_items.discount_cents',
     'Discount of the line without promotions, minor units: 0 where the cart line is net. A rejected line keeps it.'),
    ('order_line_items.total_cents', 'line_subtotal_cents - discount_cents, before promotions, minor units. A rejected line keeps it.'),
    ('order_line_items.status', 'From the checkout pending, or rejected where stock was short; then from the order functions and the host.'),
    ('order_line_items.notes',
     'Why it is rejected: insufficient_inventory from the checkout, else the reason that was given, until checkout_erase(). Null: no reason.'),
    ('order_line_items.created_at', 'When the checkout converted the cart.'),
    ('order_line_items.updated_at',
     'When the checkout, an order function or checkout_erase() last wrote the line; the host sets it for its own changes.'),
    ('payment_intents', 'What is to be paid for an order, one row each. Written by the checkout, unpaid; the host collects and moves the state.'),
    ('payment_intents.id', 'Id of the intent; from the checkout that of the order.'),
    ('payment_intents.order_id', 'Order that is paid.'),
    ('payment_intents.method', 'Method that the checkout confirmed.'),
    ('payment_intents.status', 'unpaid from the checkout; then the host''s.'),
    ('payment_intents.amount_cents',
     'Total of the order, in minor units of its currency. The order functions change it only while the intent is unpaid.'),
    ('payment_intents.created_at', 'When the checkout converted the cart.'),
    ('payment_intents.updated_at', 'When the amount last followed the order; the host sets it for its own changes.'),
    ('inventory_items', 'Stock, one row a product. Written by the inventory functions or the host, and by the checkout and the order functions.'),
    ('inventory_items.product_id', 'Product, an id of the host.'),
    ('inventory_items.available_qty', 'Units that a checkout can still take from this row; 0 while slots > 1, when inventory_slots has them.'),
    ('inventory_items.reserved_qty', 'Units that open order lines hold in this row, slot 0.'),
    ('inventory_items.updated_at', 'When the stock of this row last changed; the host sets it for its own changes.'),
    ('outbox_events',
     'Events for other systems, written in the transaction of what they tell of. The relay publishes them; outbox_purge() deletes old ones.'),
    ('outbox_events.id', 'Id of the event, also in payload and on each message: consumers know a repeat by it.'),
    ('outbox_events.event_type', 'What happened, such as checkout.converted; types of the host''s own may stand beside ours.'),
    ('outbox_events.aggregate_type', 'What it happened to: checkout_group or vendor_order; the host may have others.'),
    ('outbox_events.aggregate_id', 'The anchor or the order. The relay sends the events of one aggregate in their order.'),
    ('outbox_events.payload', 'What consumers are told: {version, event_id, occurred_at, type, data} in events of ours.'),
    ('outbox_events.created_at', 'When it happened; the events of an aggregate are in this order.'),
    ('outbox_events.published_at', 'When it was published or given up, as outbox_ack(), outbox_discard() or a publisher of the host wrote it. Null: not yet.'),
    ('outbox_events.attempt_count', 'Attempts of the relay that failed, since the event was written or replayed.'),
    ('outbox_events.last_error', 'What the last attempt failed with, up to 1000 characters. Null: none failed, or it is published.')
  ) as said (name, comment);
end
$$;
