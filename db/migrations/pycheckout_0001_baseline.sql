-- cost: none
--
-- The schema of the earlier system. On an empty schema it builds that system's tables; on a database that already
-- has them it changes nothing, so that every later migration starts from the same place.
--
-- It also brings the ledger. With IF NOT EXISTS, a rollback twin cannot tell a column of the host from one that the
-- migration added: the ledger remembers what each migration really created, and a twin drops that alone.

-- Before any change, all at once, what a later migration or the deployment of the functions could stumble over: when that
-- happens, the earlier checkout may be gone already. It only looks: `pycheckout migrate --plan` runs this statement too.
do $preflight$
declare
  v_schema constant text := current_schema();
  v_tables constant text[] := '{cart_records,cart_vendor_groups,cart_items,vendor_orders,order_line_items,payment_intents,inventory_items,outbox_events}';
  v_relations constant text[] := '{checkout_ledger,checkout_objects,checkout_groups_changed,checkout_groups_archive,inventory_slots,'
    'inventory_holds,inventory_baseline,inventory_levels,checkout_requests,idx_checkout_requests_created_at,ad_signing_keys,cart_change_permits,'
    'inventory_changes,idx_inventory_changes_created_at,checkout_releases,checkout_functions,checkout_roles,checkout_audits,checkout_market,checkout_moves,outbox_dead_letters,outbox_purges,checkout_overview,outbox_backlog,order_changes,idx_order_changes_order_id_created_at_id,'
    'idx_order_changes_order_id_change_key,payment_events,order_history,order_money,checkout_order_number_seq}';
  v_types constant text[] := '{ad_placement,ad_target_type,ad_event_type}';
  -- of the tables above, in this file
  v_table_types constant text[] := '{address_t,cart_status,vendor_group_status,cart_item_status,vendor_order_status,line_item_status,payment_method,payment_status}';
  -- `make functions-hash` writes the names between the braces.
  v_functions constant text[] := '{ad_base64url_decode, ad_epoch_ns, ad_hmac_pad, ad_json_object, ad_signing_key_put, ad_signing_key_retire, ad_token_check,'
    'ad_token_public, ad_token_verify, cart_below_minimum, cart_check_amounts, cart_check_figures, cart_check_ids, cart_check_shape,'
    'cart_check_values, cart_get, cart_group_discounts, cart_line_discount_cents, cart_lines_below_minimum, cart_open,'
    'cart_owed_beside, cart_part_refuse_change, cart_permit_take_transaction, cart_promo_cents, cart_purge, cart_put,'
    'cart_raise_inconsistent, cart_raise_not_found, cart_read, cart_read_groups, cart_read_items, cart_refuse_change,'
    'cart_refuse_taken_id, cart_refuse_truncate, cart_show_groups, cart_tax_lines_cents, cart_terms_are_right, cart_value_problem,'
    'cart_write, checkout_address, checkout_apply_grants, checkout_attribution, checkout_audit, checkout_audit_rest,'
    'checkout_audit_slice, checkout_bind_key, checkout_bound_lock_waits, checkout_build_result, checkout_canonical,'
    'checkout_check_arguments, checkout_check_key, checkout_check_object, checkout_column_type, checkout_comment, checkout_convert,'
    'checkout_create_line_items, checkout_create_orders, checkout_create_payment_intents, checkout_create_reckoned_orders,'
    'checkout_cutoff, checkout_describe_orders, checkout_describe_whole, checkout_details, checkout_emit_events, checkout_erase,'
    'checkout_execute, checkout_finalize_cart, checkout_function_private, checkout_grant, checkout_grant_operators,'
    'checkout_grant_orders, checkout_grant_payments, checkout_grant_quotes, checkout_grant_relay, checkout_grant_stock,'
    'checkout_group_note_change, checkout_groups_catch_up, checkout_index_confirm, checkout_index_prepare, checkout_is_blank,'
    'checkout_is_ours, checkout_json_join, checkout_lock_cart, checkout_metrics, checkout_migration_check, checkout_migration_close,'
    'checkout_migration_dependants, checkout_migration_lock, checkout_migration_names, checkout_migration_open, checkout_migration_pin,'
    'checkout_migration_undo, checkout_migration_wait, checkout_order_number, checkout_place_orders, checkout_privileges,'
    'checkout_raise_invalid, checkout_raise_nothing_to_order, checkout_raise_rows, checkout_register_role, checkout_request_hash,'
    'checkout_requests_purge, checkout_result, checkout_revoke, checkout_says_more, checkout_shipping_line, checkout_table_private,'
    'checkout_timestamp, checkout_totals, checkout_uuid, checkout_validate_amounts, checkout_validate_cart, checkout_validate_more,'
    'checkout_validate_quote, checkout_version, inventory_adjust, inventory_changes_purge, inventory_even_out, inventory_get,'
    'inventory_lock_available, inventory_lock_lines, inventory_lock_product, inventory_raise_full, inventory_read_levels,'
    'inventory_reserve, inventory_restock, inventory_return, inventory_set, inventory_set_many, inventory_split, inventory_spread,'
    'inventory_suffices, inventory_take, inventory_take_slot, inventory_take_split, inventory_was_changed, inventory_write_available,'
    'inventory_write_slots, market_arrive, market_close, market_drop_gate, market_expect, market_freeze, market_gate, market_guard,'
    'market_guard_text, market_leave, market_open, market_raise_moving, market_refuse, market_set_gate, market_settle, market_shut,'
    'market_status, market_stay, market_tables, market_unguard, order_adjust, order_change, order_changes_list, order_check_key,'
    'order_check_reason, order_describe, order_describe_change, order_emit_event, order_end_due, order_find, order_get,'
    'order_is_checkout_note, order_last_change, order_line_end, order_line_fulfil, order_line_release, order_line_return, order_lock,'
    'order_lock_due, order_lock_line, order_next_instant, order_part_cents, order_place, order_raise_state, order_raise_units,'
    'order_read_decisions, order_read_key, order_read_place, order_show, order_still_due, order_units_fulfilled, order_units_left,'
    'orders_list, outbox_ack, outbox_claim, outbox_discard, outbox_extend, outbox_fail, outbox_lease_end, outbox_lock_claimed,'
    'outbox_lock_event, outbox_park, outbox_purge, outbox_release, outbox_replay, outbox_take_run, payment_describe,'
    'payment_emit_event, payment_lock, payment_read, payment_record, payment_settle, payment_sums, payment_was_recorded, payment_write,'
    'vendor_order_cancel, vendor_order_decide, vendor_order_extend, vendor_order_take_cart, vendor_orders_expire}';
  v_path constant name[] := current_schemas(false);
  v_is_ours boolean;
  v_is_earlier boolean;
  v_is_fresh boolean;
  v_missing text;
  v_found jsonb;
  v_problems jsonb := '[]';
begin
  if v_schema is null then
    raise exception 'no schema of the search_path exists'
      using errcode = 'invalid_schema_name', hint = 'Create the schema first, or name another one.';
  end if;
  perform set_config(setting.name, setting.value, true)
    from (values ('search_path', quote_ident(v_schema) || ', pg_temp'), ('quote_all_identifiers', 'off'), ('row_security', 'off')) as setting (name, value);
  v_is_ours := to_regclass('checkout_ledger') is not null;
  -- Carts and orders that share an anchor are the earlier system's, however old. Tables that only have the names are not.
  v_is_earlier := 2 = (select count(*) from pg_attribute
                        where attrelid in (to_regclass('cart_records'), to_regclass('vendor_orders')) and attname = 'checkout_group_id' and not attisdropped);
  v_is_fresh := not v_is_ours and not v_is_earlier;

  -- The server and the role

  if current_setting('server_encoding') = 'SQL_ASCII' then
    v_problems := v_problems || jsonb_build_object('problem', 'encoding', 'encoding', 'SQL_ASCII',
      'message', 'the database has the encoding SQL_ASCII, in which PostgreSQL knows no characters',
      'hint', 'Move it to a database of the encoding UTF8.');
  end if;
  if current_setting('server_version_num')::integer < 150000 then
    v_problems := v_problems || jsonb_build_object('problem', 'server_version', 'version', current_setting('server_version'),
      'message', format('the server is PostgreSQL %s, and 15 is the oldest that works', current_setting('server_version')),
      'hint', 'Upgrade the server first.');
  end if;
  if current_setting('transaction_isolation') <> 'read committed' then
    v_problems := v_problems || jsonb_build_object('problem', 'isolation', 'isolation', current_setting('transaction_isolation'),
      'message', format('transactions begin as %s, and migrations must see what others committed while they waited',
                        current_setting('transaction_isolation')),
      'hint', format('ALTER ROLE %I IN DATABASE %I SET default_transaction_isolation = %L, or use pycheckout migrate.', current_user, current_database(), 'read committed'));
  end if;
  if exists (select from pg_namespace cross join aclexplode(nspacl) as acl
              where nspname = v_schema and acl.grantee = 0 and acl.privilege_type = 'CREATE') then
    v_problems := v_problems || jsonb_build_object('problem', 'public_create', 'schema', v_schema,
      'message', format('PUBLIC may create objects in schema %s, and so slip code into functions that run as their owner', v_schema),
      'hint', format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC;', v_schema));
  end if;
  if not has_schema_privilege(v_schema, 'create') then
    v_problems := v_problems || jsonb_build_object('problem', 'may_not_create', 'schema', v_schema, 'role', current_user,
      'message', format('role %s may not create objects in schema %s', current_user, v_schema),
      'hint', 'Migrate as the owner of the schema.');
  end if;
  if not has_database_privilege(current_database(), 'temporary') then
    v_problems := v_problems || jsonb_build_object('problem', 'may_not_use_temporary_tables', 'role', current_user,
      'message', format('role %s may not create temporary tables in this database', current_user),
      'hint', format('GRANT TEMPORARY ON DATABASE %I TO %I;', current_database(), current_user));
  end if;

  -- Names that are ours, in a schema where nothing of us is

  if not v_is_ours then
    select v_problems || coalesce(jsonb_agg(jsonb_build_object('problem', 'installed_elsewhere', 'schema', nspname,
             'message', format('pycheckout is in schema %I already, which the search_path names behind %I', nspname, v_schema),
             'hint', format('Say which one is meant: pycheckout migrate --schema %I. A second copy needs --schema %I.', nspname, v_schema))), '[]')
      into v_problems
      from pg_namespace where nspname = any (v_path) and to_regclass(format('%I.checkout_ledger', nspname)) is not null;

    select coalesce(jsonb_agg(jsonb_build_object('problem', 'name_taken', 'kind', kind, 'name', name,
             'message', format('%s: %s %s of yours, and a name that pycheckout needs', name, case when kind ~ '^[aeiou]' then 'an' else 'a' end, kind),
             'hint', case when v_is_fresh then 'Install into a schema of its own (pycheckout migrate --schema checkout --create-schema), or rename what has a name of ours.'
                                          else 'Rename what has a name of ours, or install into another schema.' end)
             order by kind, name), '[]')
      into v_found
      from (select case relkind when 'v' then 'view' when 'm' then 'materialized view' when 'i' then 'index' when 'S' then 'sequence' when 'f' then 'foreign table'
                                when 'c' then 'type' else 'table' end as kind, oid::regclass::text as name
              from pg_class
             where relnamespace = quote_ident(v_schema)::regnamespace
               and (relname = any (v_relations) or (v_is_fresh and relname = any (v_tables || v_table_types || '{checkout_groups}'::text[])))
             union all
            select case typtype when 'd' then 'domain' else 'type' end, oid::regtype::text
              from pg_type
             where typnamespace = quote_ident(v_schema)::regnamespace
               and (typname = any (v_types) or (v_is_fresh and typname = any (v_table_types)))
               and typrelid = 0   -- what has rows of its type is above
             union all
            select 'function', oid::regprocedure::text
              from pg_proc where pronamespace = quote_ident(v_schema)::regnamespace and proname = any (v_functions)
             union all
            select 'trigger', format('%I on %s', tgname, tgrelid::regclass)
              from pg_trigger
             where not v_is_fresh and tgrelid = any (array(select to_regclass(name) from unnest(v_tables || '{checkout_groups,cart_change_permits}'::text[]) as name))
               and (tgname ~ '^cart_(records|vendor_groups|items)_(converted_immutable|no_truncate)$'
                    or tgname in ('cart_records_id_not_taken', 'cart_change_permits_of_their_transaction', 'checkout_groups_note_change', 'vendor_orders_take_cart'))
             union all
            select 'constraint', format('%I on %s', conname, conrelid::regclass)
              from pg_constraint
             where not v_is_fresh and conrelid = any (array(select to_regclass(name) from unnest(v_tables) as name))
               and conname in ('vendor_orders_cart_id_set', 'cart_items_gross_adds_up', 'inventory_items_split_stock_in_slots')
             union all
            select 'column', format('%I.%I', attrelid::regclass, attname)
              from pg_attribute
             where not v_is_fresh
               and (attrelid, attname) in (
                     select to_regclass(ours.table_name)::oid, unnest(ours.columns)
                       from (values ('inventory_items', '{slots}'::text[]),
                                    ('outbox_events', '{next_attempt_at,claim_id,claimed_until,claim_count}'),
                                    ('cart_records', '{tax_included}'),
                                    ('cart_vendor_groups', '{shipping_cents,shipping_tax_cents,shipping_line,minimum_cents,payment_terms}'),
                                    ('cart_items', '{tax_cents,tax_lines}'),
                                    ('vendor_orders', '{promo_discount_cents,tax_included,vendor_shipping_line,shipping_tax_cents,billing_address,'
                                                      'purchase_order,metadata,expires_at,adjustments_cents,refund_due_cents}'),
                                    ('order_line_items', '{reserved_qty,tax_cents,tax_lines,fulfilled_qty,released_qty,returned_qty}'),
                                    ('payment_intents', '{payment_terms,due_at}')) as ours (table_name, columns))
               and not attisdropped) as taken (kind, name);
    v_problems := v_problems || v_found;
  end if;

  -- The tables of the earlier system. Tables of a host that only have the names are named above, and that is all of them.

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
     where to_regclass(table_name) is null and not v_is_fresh
     union all
    select format('%s.%s', table_name, column_name)
      from required
     cross join unnest(columns) as column_name
     where to_regclass(table_name) is not null and not v_is_fresh
       and not exists (select from pg_attribute
                        where attrelid = to_regclass(table_name) and attname = column_name and not attisdropped)
     union all
    select 'vendor_orders.discount_cents'
     where to_regclass('vendor_orders') is not null and not v_is_fresh
       and not exists (select from pg_attribute
                        where attrelid = to_regclass('vendor_orders') and attname in ('discount_cents', 'discounts_cents') and not attisdropped)
  )
  select string_agg(name, ', ' order by name) into v_missing from missing;
  if v_missing is not null then
    v_problems := v_problems || jsonb_build_object('problem', 'too_old', 'missing', to_jsonb(string_to_array(v_missing, ', ')),
      'message', format('this database is too old for pycheckout: it has no %s', v_missing),
      'hint', 'Bring the earlier system to its last release first, or install into an empty schema.');
  end if;

  with looked_at (relation) as (
    select to_regclass(name) from unnest(v_tables || '{checkout_groups}'::text[]) as name where not v_is_fresh
  ), changed (relation) as (
    select relation from looked_at where relation is not null
     union   -- a foreign key is dropped from both ends
    select unnest(array[conrelid, confrelid])::regclass
      from pg_constraint
     where contype = 'f' and conparentid = 0 and not v_is_fresh and to_regclass('checkout_groups') in (conrelid, confrelid)
  )
  select coalesce(jsonb_agg(problem order by problem ->> 'name'), '[]')
    into v_found
    from (select jsonb_build_object('problem', 'not_a_table', 'name', relation, 'message', format('%s is a %s, and must be an ordinary table', relation,
                   case class.relkind when 'p' then 'partitioned table' when 'v' then 'view' when 'm' then 'materialized view'
                                      when 'f' then 'foreign table' else 'relation of another kind' end),
                   'hint', 'Move its rows into an ordinary table of that name first.') as problem
            from looked_at join pg_class as class on class.oid = relation where class.relkind <> 'r'
           union all
          select jsonb_build_object('problem', 'not_owner', 'name', relation, 'owner', class.relowner::regrole,
                   'message', format('table %s belongs to role %s, and role %s is no member of it', relation, class.relowner::regrole, current_user),
                   'hint', 'Migrate as a role that owns all of these tables and types, or is a member of the roles that do.')
            from changed join pg_class as class on class.oid = relation
           where not pg_has_role(class.relowner, 'usage')
           union all
          select jsonb_build_object('problem', 'hidden_rows', 'name', relation,
                   'message', format('row level security hides rows of %s from its owner too', relation),
                   'hint', 'ALTER TABLE ... NO FORCE ROW LEVEL SECURITY on each, or migrate as a role with BYPASSRLS.')
            from looked_at join pg_class as class on class.oid = relation
           where class.relrowsecurity and class.relforcerowsecurity
             and not exists (select from pg_roles where rolname = current_user and (rolsuper or rolbypassrls))
           union all
          select jsonb_build_object('problem', 'not_owner', 'name', type.oid::regtype, 'owner', type.typowner::regrole,
                   'message', format('type %s belongs to role %s, and role %s is no member of it', type.oid::regtype, type.typowner::regrole, current_user),
                   'hint', 'Migrate as a role that owns all of these tables and types, or is a member of the roles that do.')
            from pg_attribute as attribute
            join pg_type as type on type.oid = attribute.atttypid and type.typtype = 'e'
           where not v_is_fresh and attribute.attrelid = to_regclass('outbox_events') and attribute.attname in ('event_type', 'aggregate_type')
             and not pg_has_role(type.typowner, 'usage')
           union all
          select jsonb_build_object('problem', 'wrong_type', 'name', format('%s.%I', attrelid::regclass, attname),
                   'found', format_type(atttypid, atttypmod), 'expected', wanted.type,
                   'message', format('%s.%I is %s, and must be %s', attrelid::regclass, attname, format_type(atttypid, atttypmod), wanted.type),
                   'hint', 'Rename a column of yours that only has the name.')
            from (values ('vendor_orders', '{cart_id}'::text[], 'uuid'), ('vendor_orders', '{shipping_address}', 'address_t'),
                         ('vendor_orders', '{warnings,promo,shipping_line,attributed_token}', 'jsonb'), ('vendor_orders', '{payment_method}', 'payment_method'),
                         ('order_line_items', '{cart_item_id}', 'uuid'), ('order_line_items', '{warnings,applied_volume_discount,attributed_token}', 'jsonb'),
                         ('cart_records', '{shipping_line}', 'jsonb'), ('cart_records', '{payment_method}', 'payment_method'),
                         ('cart_records', '{converted_at}', 'timestamptz')) as wanted (table_name, columns, type)
            join pg_attribute on attrelid = to_regclass(wanted.table_name) and attname = any (wanted.columns) and not attisdropped
           where not v_is_fresh and atttypid is distinct from to_regtype(wanted.type)
           union all
          -- a number of the host's own is drawn from its default before the INSERT
          select jsonb_build_object('problem', 'wrong_type', 'name', 'vendor_orders.order_number', 'found', format_type(atttypid, atttypmod),
                   'expected', 'integer or bigint, not generated',
                   'message', format('vendor_orders.order_number is %s, and must be a plain integer or bigint', format_type(atttypid, atttypmod)),
                   'hint', 'Rename a column of yours that only has the name.')
            from pg_attribute
           where attrelid = to_regclass('vendor_orders') and attname = 'order_number' and not attisdropped
             and (atttypid not in ('integer'::regtype, 'bigint'::regtype) or attgenerated <> '')
           union all
          select jsonb_build_object('problem', 'unreadable', 'name', 'products', 'message', format('role %s may not read products', current_user),
                   'hint', format('GRANT SELECT ON products TO %I;', current_user))
           where not v_is_fresh and not has_table_privilege(to_regclass('products'), 'select')
             and exists (select from pg_attribute where attrelid = to_regclass('products') and attname in ('title', 'category', 'unit'))
           union all
          select jsonb_build_object('problem', 'other_index', 'name', wanted.name, 'found', pg_get_indexdef(index.indexrelid),
                   'message', format('index %s is not what it must be: %s', wanted.name, pg_get_indexdef(index.indexrelid)),
                   'hint', 'Drop or rename each index that only has the name.')
            from (values ('idx_vendor_orders_checkout_group_id', 'vendor_orders', '{"f checkout_group_id","t checkout_group_id, vendor_store_id"}'::text[], null),
                         ('idx_vendor_orders_cart_id', 'vendor_orders', '{f cart_id}', null),
                         ('idx_vendor_orders_vendor_store_id_created_at_id', 'vendor_orders', '{"f vendor_store_id, created_at, id"}', null),
                         ('idx_vendor_orders_buyer_store_id_created_at_id', 'vendor_orders', '{"f buyer_store_id, created_at, id"}', null),
                         ('idx_cart_records_checkout_group_id', 'cart_records', '{t checkout_group_id}', 'checkout_group_id IS NOT NULL'),
                         ('idx_outbox_events_conversion', 'outbox_events', '{"t aggregate_id, event_type"}',
                          '%checkout.vendor_orders_created%checkout.converted%'),
                         ('idx_outbox_events_due', 'outbox_events', '{"f claim_id, next_attempt_at, id"}',
                          '%published_at IS NULL AND next_attempt_at < ''infinity''%'),
                         ('idx_outbox_events_waiting', 'outbox_events', '{"f aggregate_id, created_at, id"}',
                          '%published_at IS NULL AND next_attempt_at >= ''-infinity''%'),
                         ('idx_outbox_events_published', 'outbox_events', '{"f created_at"}', '%published_at IS NOT NULL AND next_attempt_at IS NOT NULL%'),
                         ('idx_cart_records_converted_at_valid_until', 'cart_records', '{"f COALESCE(converted_at, valid_until)"}', null),
                         -- of a host's own column, the host's own
                         (case when not exists (select from pg_attribute where attrelid = to_regclass('vendor_orders') and attname = 'order_number' and not attisdropped)
                               then 'idx_vendor_orders_order_number' end, 'vendor_orders', '{t order_number}', 'order_number IS NOT NULL'),
                         ('idx_vendor_orders_expires_at_id', 'vendor_orders', '{"f expires_at, id"}', '%created_pending%expires_at IS NOT NULL%'),
                         ('idx_vendor_orders_refund_due_cents', 'vendor_orders', '{"f refund_due_cents"}', 'refund_due_cents > 0'),
                         ('idx_vendor_orders_purchase_order_created_at_id', 'vendor_orders', '{"f purchase_order, created_at, id"}',
                          'purchase_order IS NOT NULL')) as wanted (name, table_name, columns, predicate)
            join pg_class as class on class.relname = wanted.name and class.relnamespace = quote_ident(v_schema)::regnamespace
            left join pg_index as index on index.indexrelid = class.oid
           where (index.indisvalid is not false)   -- what a failed build left is built anew
             and (index.indrelid = to_regclass(wanted.table_name)
                  and (select concat(index.indisunique, ' ', string_agg(pg_get_indexdef(index.indexrelid, position, true), ', ' order by position))
                         from generate_series(1, index.indnkeyatts) as position) = any (wanted.columns)
                  and (index.indpred is null or pg_get_expr(index.indpred, index.indrelid, true) like wanted.predicate)) is not true) as found;
  v_problems := v_problems || v_found;

  -- The rows, where the columns are there and may be read

  if not v_is_fresh and v_missing is null and not exists (
    select from unnest(v_tables || '{checkout_groups}'::text[]) as name
     where not has_table_privilege(to_regclass(name), 'select') or v_problems @> jsonb_build_array(jsonb_build_object('problem', 'hidden_rows', 'name', name)))
  then
    -- One anchor a cart and one cart an anchor, whichever table says so.
    execute format($conflicts$
      with pairs as (
        select id as cart_id, checkout_group_id from cart_records where checkout_group_id is not null
         %s
      ), conflicts as (
        select jsonb_build_object('checkout_group_id', checkout_group_id, 'cart_ids', jsonb_agg(cart_id order by cart_id)) as row
          from pairs group by checkout_group_id having count(*) > 1
         union all
        select jsonb_build_object('cart_id', cart_id, 'checkout_group_ids', jsonb_agg(checkout_group_id order by checkout_group_id))
          from pairs group by cart_id having count(*) > 1
      )
      select jsonb_agg(row) from (select row from conflicts limit 20) as first_conflicts $conflicts$,
      case when to_regclass('checkout_groups') is not null then 'union select cart_id, id from checkout_groups where cart_id is not null' end)
      into v_found;
    if v_found is not null then
      v_problems := v_problems || jsonb_build_object('problem', 'not_one_to_one', 'conflicts', v_found,
        'message', format('carts and checkout groups are not one to one: %s', v_found),
        'hint', 'Decide which pairs are right, correct the others, and apply again.');
    end if;

    -- The checkout would find orders there that are not its cart's. By joins, not a cart at a time: the earlier system has
    -- no index on checkout_groups.cart_id.
    execute format($anchors$
      select jsonb_agg(row order by row)
        from (select jsonb_build_object('cart_id', anchor.cart_id, 'checkout_group_id', anchor.id, 'order_ids', jsonb_agg(orders.id order by orders.id)) as row
                from (select cart.id as cart_id, cart.checkout_group_id as id from cart_records as cart where cart.status = 'active' %s) as anchor
                join vendor_orders as orders on orders.checkout_group_id = anchor.id
               group by anchor.cart_id, anchor.id
               limit 20) as found $anchors$,
      case when to_regclass('checkout_groups') is not null
           then $pairs$ union select cart.id, checkout_groups.id from checkout_groups join cart_records as cart on cart.id = checkout_groups.cart_id
                 where cart.status = 'active' $pairs$ end)
      into v_found;
    if v_found is not null then
      v_problems := v_problems || jsonb_build_object('problem', 'anchor_has_orders', 'carts', v_found,
        'message', format('carts are active whose anchor carries orders: %s', v_found),
        'hint', 'Mark carts as converted that became these orders, and take the anchor from the others.');
    end if;

    select jsonb_agg(row order by row) into v_found
      from (select jsonb_build_object('aggregate_id', aggregate_id, 'event_type', event_type::text, 'event_ids', jsonb_agg(id order by id)) as row
              from outbox_events
             where event_type::text in ('checkout.vendor_orders_created', 'checkout.converted')
             group by aggregate_id, event_type having count(*) > 1
             limit 20) as found;
    if v_found is not null then
      v_problems := v_problems || jsonb_build_object('problem', 'duplicate_events', 'events', v_found,
        'message', format('outbox_events has more than one event of a kind about one checkout: %s', v_found),
        'hint', 'Keep one of each, and delete the others.');
    end if;
  end if;

  if v_problems <> '[]' then
    raise exception '%', (select string_agg(problem ->> 'message', '; ' order by position)
                            from jsonb_array_elements(v_problems) with ordinality as listed (problem, position))
      using errcode = 'object_not_in_prerequisite_state',
            detail = jsonb_build_object('problems', v_problems),
            hint = (select string_agg(hint, chr(10) order by first)
                      from (select problem ->> 'hint' as hint, min(position) as first
                              from jsonb_array_elements(v_problems) with ordinality as listed (problem, position)
                             group by 1) as hints);
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
 where type.typnamespace = (select quote_ident(current_schema())::regnamespace)
   and (type.typtype = 'e' or class.relkind = 'c')
 union all
select case relkind when 'v' then 'view' else 'table' end, null, relname
  from pg_class
 where relnamespace = (select quote_ident(current_schema())::regnamespace) and relkind in ('r', 'p', 'v')
 union all
select 'column', class.relname, attribute.attname
  from pg_attribute as attribute
  join pg_class as class on class.oid = attribute.attrelid
 where class.relnamespace = (select quote_ident(current_schema())::regnamespace) and class.relkind in ('r', 'p')
   and attribute.attnum > 0 and not attribute.attisdropped
 union all
select 'constraint', class.relname, con.conname
  from pg_constraint as con
  join pg_class as class on class.oid = con.conrelid
 where class.relnamespace = (select quote_ident(current_schema())::regnamespace) and con.contype not in ('n', 't')
 union all
select 'index', class.relname, index_class.relname
  from pg_index as index
  join pg_class as index_class on index_class.oid = index.indexrelid
  join pg_class as class on class.oid = index.indrelid
 where class.relnamespace = (select quote_ident(current_schema())::regnamespace)
   and not exists (select from pg_constraint where conindid = index.indexrelid)
 union all
select 'function', null, oid::regprocedure::text
  from pg_proc
 where pronamespace = (select quote_ident(current_schema())::regnamespace)
 union all
select 'trigger', class.relname, trigger.tgname
  from pg_trigger as trigger
  join pg_class as class on class.oid = trigger.tgrelid
 where class.relnamespace = (select quote_ident(current_schema())::regnamespace) and not trigger.tgisinternal;

comment on view checkout_objects is 'Objects of the schema, as the migration ledger names them.';
comment on column checkout_objects.kind is 'type, table, view, column, constraint, index, function or trigger.';
comment on column checkout_objects.table_name is 'Table that it belongs to; null for what belongs to none.';
comment on column checkout_objects.name is 'Its name; of a function its signature.';

-- Pins the schema, and every setting of the database or the role that would change what a migration does, until its
-- transaction ends (or for the session, where it commits in between). No statement waits long for a lock that a host's
-- statements would queue behind: how long a migration is patient altogether is the session's lock_timeout, or a minute.
create or replace function checkout_migration_pin(for_transaction boolean default true)
returns void
language plpgsql
as $$
begin
  if coalesce(current_setting('pycheckout.patience', true), '') = '' then
    perform set_config('pycheckout.patience',
                       case current_setting('lock_timeout') when '0' then '60s' else current_setting('lock_timeout') end,
                       checkout_migration_pin.for_transaction);
  end if;
  perform set_config(setting.name, setting.value, checkout_migration_pin.for_transaction)
    from (values
      ('search_path', quote_ident(current_schema()) || ', pg_temp'),
      ('lock_timeout', '100ms'),
      ('default_tablespace', ''),
      ('default_table_access_method', 'heap'),
      ('quote_all_identifiers', 'off'),
      ('row_security', 'off'),
      ('standard_conforming_strings', 'on'),
      ('transform_null_equals', 'off'),
      ('check_function_bodies', 'on'),
      ('datestyle', 'ISO, YMD'),
      ('intervalstyle', 'postgres')
    ) as setting (name, value);
end;
$$;

-- From here on the transaction waits as long as it may: only for locks that stop no statement of a host, such as those
-- of VALIDATE CONSTRAINT.
create or replace function checkout_migration_wait()
returns void
language plpgsql
as $$
begin
  perform set_config('lock_timeout', current_setting('pycheckout.patience'), true);
end;
$$;

-- Locks tables against everybody, all of them or none. What waits for such a lock makes every later statement of the
-- table wait behind it: so an attempt ends after 100 ms, gives back what it has, and lets the others go first.
create or replace function checkout_migration_lock(variadic tables regclass[])
returns void
language plpgsql
as $$
declare
  v_give_up constant timestamptz := clock_timestamp() + current_setting('pycheckout.patience')::interval;
  v_attempt_ends timestamptz;
  v_table regclass;
  v_holders text;
begin
  -- A vacuum steps aside only for who has waited for a second. This lock keeps it away, and stops no statement.
  perform checkout_migration_wait();
  execute format('lock table %s in share update exclusive mode', array_to_string(checkout_migration_lock.tables, ', '));

  loop
    v_attempt_ends := clock_timestamp() + interval '100 ms';
    begin
      -- a loop, because every table has what is left of the time
      foreach v_table in array checkout_migration_lock.tables loop
        perform set_config('lock_timeout', greatest(1, extract(milliseconds from v_attempt_ends - clock_timestamp())::integer)::text, true);
        execute format('lock table %s in access exclusive mode', v_table);
      end loop;
      perform set_config('lock_timeout', '100ms', true);
      return;
    exception when lock_not_available then
      if clock_timestamp() >= v_give_up then
        select string_agg(distinct pid::text, ', ') into v_holders
          from pg_locks
         where locktype = 'relation' and relation = any (checkout_migration_lock.tables) and granted and pid <> pg_backend_pid()
           and database = (select oid from pg_database where datname = current_database());
        raise lock_not_available
          using message = format('no moment without a transaction on %s within %s', array_to_string(checkout_migration_lock.tables, ', '),
                                 current_setting('pycheckout.patience')),
                detail = jsonb_build_object('tables', checkout_migration_lock.tables, 'processes', v_holders),
                hint = 'Apply again when the long transactions on these tables have ended'
                       || coalesce(format(': select * from pg_stat_activity where pid in (%s);', v_holders), '.');
      end if;
    end;
    perform pg_sleep(0.1 + random() * 0.1);
  end loop;
end;
$$;

-- Raises if one of these names is that of something that no migration made: a table, view, type or function, or what is
-- on a table (table.name). With IF NOT EXISTS, a migration would take it for its own, whatever it is.
create or replace function checkout_migration_names(variadic names text[])
returns void
language plpgsql
stable
as $$
declare
  v_problems jsonb;
begin
  if cardinality(checkout_migration_names.names) = 0 then   -- most migrations bring none, and all objects take a while
    return;
  end if;

  select jsonb_agg(jsonb_build_object('problem', 'name_taken', 'kind', kind, 'name', name,
           'message', format('%s: %s %s of yours, and a name that pycheckout needs', name, case when kind ~ '^[aeiou]' then 'an' else 'a' end, kind),
           'hint', 'Rename what has a name of ours.') order by kind, name)
    into v_problems
    from (select object.kind, concat_ws('.', object.table_name, split_part(object.name, '(', 1)) as name
            from checkout_objects as object
           where not exists (select from checkout_ledger as ledger
                              where (ledger.kind, ledger.name) = (object.kind, object.name) and ledger.table_name is not distinct from object.table_name)
           union   -- no migration makes these, but sequences that a column owns
          select case relkind when 'm' then 'materialized view' when 'S' then 'sequence' else 'foreign table' end, relname
            from pg_class where relnamespace = quote_ident(current_schema())::regnamespace and relkind in ('m', 'S', 'f')
             and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = pg_class.oid and deptype in ('a', 'i'))
           union
          select 'domain', typname
            from pg_type where typnamespace = quote_ident(current_schema())::regnamespace and typtype = 'd') as found
   where name = any (checkout_migration_names.names);
  if v_problems is not null then
    raise exception '%', (select string_agg(problem ->> 'message', '; ' order by position)
                            from jsonb_array_elements(v_problems) with ordinality as listed (problem, position))
      using errcode = 'object_not_in_prerequisite_state', detail = jsonb_build_object('problems', v_problems),
            hint = v_problems -> 0 ->> 'hint';
  end if;
end;
$$;

-- new_names: what the migration brings. The preflight looks for what those brought that came with it.
create or replace function checkout_migration_open(variadic new_names text[] default '{}')
returns void
language plpgsql
as $$
declare
  v_moves boolean;
begin
  perform checkout_migration_pin();
  -- what a move to another server has copied would not have it
  if to_regclass('checkout_market') is not null then
    execute 'select exists (select from checkout_market where state <> ''selling'' or followed_until is not null)' into v_moves;
    if v_moves then
      raise exception 'the market moves, has moved, or has a server that follows, and nothing in its schema may change'
        using errcode = 'object_not_in_prerequisite_state', hint = 'End the move first (pycheckout market finish), or take it back: pycheckout market status.';
    end if;
  end if;
  perform checkout_migration_names(variadic checkout_migration_open.new_names);
  create temporary table checkout_objects_before on commit drop as select * from checkout_objects;
end;
$$;

create or replace function checkout_migration_close(migration text)
returns void
language plpgsql
as $$
declare
  v_object checkout_ledger;
begin
  -- a loop, because every object takes a REVOKE: the owner's default privileges (ALTER DEFAULT PRIVILEGES) name nobody
  for v_object in
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
     where object.table_name is null   -- what hangs on a new table goes with it; a trigger might be a host's, later
        or object.kind = 'trigger'
        or exists (select from checkout_objects_before as before
                    where before.kind = 'table' and before.name = object.table_name)
     order by array_position('{type,table,column,constraint,index,function,trigger,view}', object.kind),
              to_regclass(quote_ident(object.name))::oid, object.name   -- tables in the order of their creation
    returning *
  loop
    case when v_object.kind in ('table', 'view') then perform checkout_table_private(v_object.name);
         when v_object.kind = 'function' then perform checkout_function_private(v_object.name);
         else null;
    end case;
  end loop;
  drop table checkout_objects_before;
end;
$$;

-- Objects of others that would stop a rollback: what depends on something of ours and is none of ours, as text. After a
-- migration: on what the later ones made, or on a function, which go with any of them.
create or replace function checkout_migration_dependants(after text default null)
returns text[]
language plpgsql
stable
as $$
declare
  v_signatures text[];
  v_dependants text[];
begin
  if to_regclass('checkout_functions') is not null then
    execute 'select array_agg(signature) from checkout_functions' into v_signatures;
  end if;

  with noted as (
    select * from checkout_ledger
     where checkout_migration_dependants.after is null or migration > checkout_migration_dependants.after collate "C"
  ), ours (classid, objid, objsubid) as (
    select 'pg_class'::regclass, to_regclass(quote_ident(ledger.name))::oid, 0
      from noted as ledger where ledger.kind in ('table', 'view', 'index')
     union all
    select 'pg_class'::regclass, unnest(array['checkout_ledger'::regclass, 'checkout_objects'::regclass])::oid, 0
     where checkout_migration_dependants.after is null
     union all
    select 'pg_class'::regclass, attribute.attrelid, attribute.attnum
      from noted as ledger
      join pg_attribute as attribute on attribute.attrelid = to_regclass(quote_ident(ledger.table_name)) and attribute.attname = ledger.name
     where ledger.kind = 'column'
     union all
    select 'pg_type'::regclass, to_regtype(quote_ident(ledger.name))::oid, 0
      from noted as ledger where ledger.kind in ('type', 'table', 'view')
     union all
    select 'pg_proc'::regclass, to_regprocedure(ledger.name)::oid, 0
      from noted as ledger where ledger.kind = 'function'
     union all
    select 'pg_proc'::regclass, oid, 0
      from pg_proc
     where checkout_migration_dependants.after is null and pronamespace = quote_ident(current_schema())::regnamespace
       and proname in ('checkout_migration_pin', 'checkout_migration_wait', 'checkout_migration_lock', 'checkout_migration_names', 'checkout_migration_open',
                       'checkout_migration_close', 'checkout_migration_dependants', 'checkout_migration_check', 'checkout_migration_undo',
                       'checkout_column_type', 'checkout_is_ours', 'checkout_table_private', 'checkout_function_private', 'checkout_comment',
                       'checkout_index_prepare', 'checkout_index_confirm')
     union all
    select 'pg_trigger'::regclass, trigger.oid, 0
      from noted as ledger
      join pg_trigger as trigger on trigger.tgrelid = to_regclass(quote_ident(ledger.table_name)) and trigger.tgname = ledger.name
     where ledger.kind = 'trigger'
     union all
    select 'pg_constraint'::regclass, con.oid, 0
      from noted as ledger
      join pg_constraint as con on con.conrelid = to_regclass(quote_ident(ledger.table_name)) and con.conname = ledger.name
     where ledger.kind = 'constraint'
  ), deployed (classid, objid, objsubid) as (
    select * from ours
     union all
    select 'pg_proc'::regclass, to_regprocedure(signature)::oid, 0 from unnest(v_signatures) as signature
  ), dependants (classid, objid, relation) as (
    select depend.classid, depend.objid,
           case depend.classid
             when 'pg_class'::regclass then depend.objid
             when 'pg_rewrite'::regclass then (select ev_class from pg_rewrite where oid = depend.objid)
             when 'pg_constraint'::regclass then (select conrelid from pg_constraint where oid = depend.objid)
             when 'pg_trigger'::regclass then (select tgrelid from pg_trigger where oid = depend.objid)
             when 'pg_attrdef'::regclass then (select adrelid from pg_attrdef where oid = depend.objid)
             when 'pg_policy'::regclass then (select polrelid from pg_policy where oid = depend.objid)
           end
      from pg_depend as depend
      join deployed on deployed.classid = depend.refclassid and deployed.objid = depend.refobjid
       and (deployed.objsubid = 0 or deployed.objsubid = depend.refobjsubid)
     where depend.deptype = 'n'
     union   -- these would go along without a word
    select 'pg_trigger'::regclass, trigger.oid, null
      from pg_trigger as trigger
      join ours on ours.classid = 'pg_class'::regclass and ours.objid = trigger.tgrelid and ours.objsubid = 0
     where not trigger.tgisinternal
  )
  select array_agg(distinct case dependant.classid when 'pg_rewrite'::regclass then pg_describe_object('pg_class'::regclass, dependant.relation, 0)
                                                   else pg_describe_object(dependant.classid, dependant.objid, 0) end)
    into v_dependants
    from dependants as dependant
   where not exists (select from deployed
                      where (deployed.classid, deployed.objid) = (dependant.classid, dependant.objid)
                         or (deployed.classid = 'pg_class'::regclass and deployed.objid = dependant.relation and deployed.objsubid = 0));
  return v_dependants;
end;
$$;

-- Raises if rows would be lost by undoing a migration; of all of them, or of all after one, also if something else would stop
-- that halfway.
create or replace function checkout_migration_check(migration text default null, after text default null)
returns void
language plpgsql
as $$
declare
  v_object checkout_ledger;
  v_table text;
  v_condition text;
  v_loses boolean;
  v_dependants text[];
  v_unknown jsonb;
begin
  perform checkout_migration_pin();
  if checkout_migration_check.migration is null then
    v_dependants := checkout_migration_dependants(checkout_migration_check.after);
    if v_dependants is not null then
      raise exception 'rolling back would need these gone first, which depend on pycheckout: %', array_to_string(v_dependants, '; ')
        using errcode = 'dependent_objects_still_exist',
              detail = jsonb_build_object('dependants', v_dependants),
              hint = 'Nothing was undone. Change or drop these, then roll back again.';
    end if;
    if checkout_migration_check.after is null
       and to_regclass('checkout_groups_archive') is null and exists (select from checkout_ledger where kind = 'archived_table') then
      raise exception 'checkout_groups cannot be restored: its archive was dropped'
        using errcode = 'object_not_in_prerequisite_state';
    end if;
  end if;

  -- a loop, because every object takes a query of its own
  for v_object in
    select * from checkout_ledger as ledger
     where ledger.kind in ('table', 'column')
       and (ledger.migration = checkout_migration_check.migration or checkout_migration_check.migration is null)
       and (checkout_migration_check.after is null or ledger.migration > checkout_migration_check.after collate "C")
     order by ledger.id desc
  loop
    v_table := coalesce(v_object.table_name, v_object.name);
    v_condition := v_object.definition;
    if checkout_migration_check.migration is null and to_regclass('checkout_groups_archive') is not null then
      -- as it will be: a group forgets a cart that is no longer there
      v_condition := replace(v_condition, 'from checkout_groups as anchor',
                             'from (select archived.id, archived.cart_id from checkout_groups_archive as archived '
                             'join cart_records as cart on cart.id = archived.cart_id) as anchor');
    end if;
    begin
      execute format('select exists (select from %I where %s)', v_table, v_condition) into v_loses;
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
              detail = format('SELECT * FROM %I WHERE %s;', v_table, v_condition),
              hint = 'Save these rows and clear them, if they are really no longer needed.';
    end if;
  end loop;

  if num_nonnulls(checkout_migration_check.migration, checkout_migration_check.after) = 0 then
    if to_regclass('checkout_groups_archive') is not null then
      select jsonb_agg(id) into v_unknown
        from (select id from vendor_orders as vendor_order
               where not exists (select from checkout_groups_archive as anchor where anchor.id = vendor_order.checkout_group_id)
               order by id limit 20) as orders;
    elsif exists (select from checkout_ledger where kind = 'dropped_table') then
      select jsonb_agg(id) into v_unknown from (select id from vendor_orders order by id limit 20) as orders;
    end if;
    if v_unknown is not null then
      raise exception 'orders were made since checkout_groups went, and it has no row for them: %', v_unknown
        using errcode = 'object_in_use', detail = v_unknown::text,
              hint = 'Nothing was undone. Save these orders and delete them, if they are really no longer needed.';
    end if;
  end if;
end;
$$;

-- Undoes what the ledger says of a migration, newest first. Raises, and so changes nothing, if a row would be lost.
create or replace function checkout_migration_undo(migration text)
returns void
language plpgsql
as $$
declare
  v_object checkout_ledger;
  v_tables regclass[];
begin
  perform checkout_migration_pin();
  -- The locks come before the check, or a row could still slip in.
  select array_agg(distinct found.relation) into v_tables
    from (select to_regclass(quote_ident(coalesce(ledger.table_name, ledger.name))) as relation
            from checkout_ledger as ledger
           where ledger.migration = checkout_migration_undo.migration and ledger.kind in ('table', 'column', 'trigger', 'constraint', 'index')) as found
   where found.relation is not null;
  if v_tables is not null then
    perform checkout_migration_lock(variadic v_tables);
  end if;
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

-- A new table is open to whom the owner's default privileges say (ALTER DEFAULT PRIVILEGES); this one, or view, is the
-- owner's alone, and so are its sequences.
create or replace function checkout_table_private(table_name text)
returns void
language plpgsql
as $$
declare
  v_right record;
begin
  -- a loop, because every role takes a REVOKE
  for v_right in
    select distinct class.oid::regclass as name, case class.relkind when 'S' then 'sequence' else 'table' end as kind,
           case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end as grantee
      from pg_class as class
     cross join aclexplode(class.relacl) as acl
     where acl.grantee <> class.relowner
       and (class.oid = quote_ident(checkout_table_private.table_name)::regclass
            or class.relkind = 'S' and class.oid in (
              select objid from pg_depend
               where refclassid = 'pg_class'::regclass and refobjid = quote_ident(checkout_table_private.table_name)::regclass
                 and classid = 'pg_class'::regclass and deptype in ('a', 'i')))
  loop
    execute format('revoke all on %s %s from %s cascade', v_right.kind, v_right.name, v_right.grantee);
  end loop;
end;
$$;

-- Likewise a function.
create or replace function checkout_function_private(signature text)
returns void
language plpgsql
as $$
declare
  v_grantee text;
begin
  -- a loop, because every role takes a REVOKE
  for v_grantee in
    select distinct case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end
      from pg_proc as routine
     cross join aclexplode(routine.proacl) as acl
     where routine.oid = checkout_function_private.signature::regprocedure and acl.grantee <> routine.proowner
  loop
    execute format('revoke all on function %s from %s cascade', checkout_function_private.signature, v_grantee);
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
-- of the migration that calls this. The migration that builds calls it again, for a build of its own that broke off.
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
    perform checkout_migration_lock(quote_ident(checkout_index_prepare.table_name)::regclass);
    -- looked at again: the build of a migrator that was killed may have come to its end meanwhile
    if exists (select from pg_index where indexrelid = to_regclass(quote_ident(checkout_index_prepare.index_name)) and not indisvalid) then
      execute format('drop index %I', checkout_index_prepare.index_name);
    end if;
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
      ('checkout_migration_pin(boolean)', 'Step of a migration: pins the schema and settings, and bounds lock waits, for the transaction or the session.'),
      ('checkout_migration_wait()', 'Step of a migration: from here on it waits for locks as long as it may.'),
      ('checkout_migration_lock(regclass[])', 'Step of a migration: locks tables against everybody, in attempts that nobody waits long behind.'),
      ('checkout_migration_names(text[])', 'Raises if one of these names is that of something that no migration made.'),
      ('checkout_migration_open(text[])',
       'Step of a migration: pins the schema, bounds lock waits, refuses names that are taken, notes which objects exist.'),
      ('checkout_migration_close(text)', 'Step of a migration: writes to the ledger what it created.'),
      ('checkout_migration_dependants(text)', 'What of others depends on pycheckout and would stop a rollback, as text.'),
      ('checkout_migration_check(text,text)',
       'Raises if rows would be lost by rolling back a migration; of all of them, or of all after one, also if something depends on them.'),
      ('checkout_migration_undo(text)', 'Body of a rollback twin: drops what the migration created; raises if rows would be lost.'),
      ('checkout_column_type(text, text)', 'Type of a column, as SQL.'),
      ('checkout_comment(text, text)', 'Step of a migration: comments a table, type or table.column, unless it is the host''s.'),
      ('checkout_is_ours(text, text)', 'Whether a migration of pycheckout created this table, type or column.'),
      ('checkout_table_private(text)', 'Step of a migration: takes every right on a table or view from everybody but its owner.'),
      ('checkout_function_private(text)', 'Step of a migration: takes every right on a function from everybody but its owner.'),
      ('checkout_index_prepare(text, text, text)', 'Step of a migration: drops an invalid index of this name, notes a valid one as the host''s.'),
      ('checkout_index_confirm(text, text, text, text, boolean, text)', 'Step of a migration: raises unless the index is valid and right.')
    ) as step (signature, comment)
  loop
    perform checkout_function_private(v_step.signature);
    execute format('revoke execute on function %s from public', v_step.signature);
    execute format('comment on function %s is %L', v_step.signature, v_step.comment);
  end loop;
  perform checkout_table_private('checkout_ledger');
  perform checkout_table_private('checkout_objects');
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

  -- a database that has orders and no such table has dropped it already
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
  constraint vendor_orders_buyer_is_not_vendor check (buyer_store_id <> vendor_store_id)
);

do $$
begin
  -- one index for both: one order a vendor and checkout, and the orders of a checkout
  if not exists (select from checkout_objects_before where kind = 'table' and name = 'vendor_orders') then
    create unique index if not exists idx_vendor_orders_checkout_group_id on vendor_orders (checkout_group_id, vendor_store_id);
  end if;

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
  event_type text collate "C" not null,
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
  -- those of columns that some releases of the earlier system lack, or call otherwise, come with missing_columns and drop_checkout_groups
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
     'The checkout and the order functions write created_pending, accepted, partially_accepted, rejected, fulfilled, partially_fulfilled, canceled '
     'and expired; the rest is the host''s.'),
    ('line_item_status', 'pending, accepted and hold: the line holds stock. rejected: it gave it back, or got none. fulfilled: its goods have left.'),
    ('payment_method', 'How an order is paid. The checkout takes any value of this type.'),
    ('payment_status',
     'unpaid: nothing happened yet, and the amount follows the order. Where payments are recorded, payment_record() writes pending and settled, and failed '
     'where the host''s type has it; else the host does. paid is the host''s alone.'),
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
    ('cart_records.discounts_cents', 'Discounts that the buyer was quoted, promotions included, minor units: the sum over the vendor groups that are ok.'),
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
     'What the buyer pays this vendor, tax and shipping included, minor units. What is taken off beyond the discounts of the lines is the promotion''s share.'),
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
    ('vendor_orders.status', 'From the checkout created_pending, or rejected if every line was; then from the order functions, vendor_orders_expire() and the host.'),
    ('vendor_orders.subtotal_cents', 'Subtotals of what is left of its lines, before their discounts, minor units.'),
    ('vendor_orders.tax_cents', 'Tax on what is left of its lines and on its shipping, minor units, as quoted. Part of total_cents unless tax_included.'),
    ('vendor_orders.transport_fee_cents', 'Shipping that the vendor charges, without its tax, minor units, as quoted: shipping_cents of the vendor group.'),
    ('vendor_orders.total_cents',
     'subtotal_cents - discounts_cents + tax_cents (unless tax_included) + transport_fee_cents + adjustments_cents, minor units.'),
    ('vendor_orders.balance_due_cents',
     'What is still to be paid, minor units: total_cents at first; payment_record() or the host takes off payments, the order functions what comes off.'),
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
    ('order_line_items.status', 'From the checkout pending, or rejected where stock was short or the order below the minimum; then from the order functions and the host.'),
    ('order_line_items.notes',
     'Why it is rejected: insufficient_inventory or below_minimum from the checkout, else the reason that was given, until checkout_erase(). Null: no reason.'),
    ('order_line_items.created_at', 'When the checkout converted the cart.'),
    ('order_line_items.updated_at',
     'When the checkout, an order function or checkout_erase() last wrote the line; the host sets it for its own changes.'),
    ('payment_intents',
     'What is to be paid for an order, one row each. Written by the checkout, unpaid; the host collects, and payment_record() or the host moves the state.'),
    ('payment_intents.id', 'Id of the intent; from the checkout that of the order.'),
    ('payment_intents.order_id', 'Order that is paid.'),
    ('payment_intents.method', 'Method that the checkout confirmed.'),
    ('payment_intents.status', 'unpaid from the checkout; then as payment_record() finds from the payment events, or the host''s.'),
    ('payment_intents.amount_cents',
     'Total of the order, in minor units of its currency. The order functions change it only while nothing is under way: unpaid, failed or rejected.'),
    ('payment_intents.created_at', 'When the checkout converted the cart.'),
    ('payment_intents.updated_at', 'When the amount last followed the order, or the state its payments; the host sets it for its own changes.'),
    ('inventory_items', 'Stock, one row a product. Written by the inventory functions or the host, and by the checkout and the order functions.'),
    ('inventory_items.product_id', 'Product, an id of the host.'),
    ('inventory_items.available_qty', 'Units that a checkout can still take from this row; 0 while slots > 1, when inventory_slots has them.'),
    ('inventory_items.reserved_qty', 'Units that open order lines hold in this row, slot 0.'),
    ('inventory_items.updated_at', 'When the stock of this row last changed; the host sets it for its own changes.'),
    ('outbox_events',
     'Events for other systems, written in the transaction of what they tell of. The relay publishes them; outbox_purge() deletes old ones.'),
    ('outbox_events.id', 'Id of the event, also in payload and on each message: consumers know a repeat by it.'),
    ('outbox_events.event_type', 'What happened, such as checkout.converted; types of the host''s own may stand beside ours.'),
    ('outbox_events.aggregate_type', 'What it happened to: checkout_group in events of ours; the host may have others.'),
    ('outbox_events.aggregate_id', 'Id of that: in events of ours the anchor. The relay sends the events of one aggregate in their order.'),
    ('outbox_events.payload', 'What consumers are told: {version, event_id, occurred_at, type, data} in events of ours.'),
    ('outbox_events.created_at', 'When it happened; the events of an aggregate are in this order.'),
    ('outbox_events.published_at', 'When it was published or given up, as outbox_ack(), outbox_discard() or a publisher of the host wrote it. Null: not yet.'),
    ('outbox_events.attempt_count', 'Attempts of the relay that failed, since the event was written or replayed.'),
    ('outbox_events.last_error', 'What the last attempt failed with, up to 1000 characters. Null: none failed, or it is published.')
  ) as said (name, comment);
end
$$;
