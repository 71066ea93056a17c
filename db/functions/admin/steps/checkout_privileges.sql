-- checkout_privileges: what each kind of role may do, one row a privilege; columns are named where it is for some of them only.
--
-- checkout_apply_grants gives it, `pycheckout doctor` looks whether it is there.

create or replace function checkout_privileges()
returns table (scope text, privilege text, kind text, object text, columns text[])
language sql
immutable
as $$
  values ('checkout', 'execute', 'function', 'checkout_execute(uuid, uuid, text, jsonb, text, jsonb, text, text, jsonb, text, jsonb, interval)', null::text[]),
         ('checkout', 'execute', 'function', 'checkout_result(uuid, uuid)', null),
         ('checkout', 'execute', 'function', 'ad_token_check(text, uuid)', null),
         ('checkout', 'execute', 'function', 'cart_get(uuid, uuid)', null),
         ('checkout', 'execute', 'function', 'order_get(uuid, uuid, uuid)', null),
         ('checkout', 'execute', 'function', 'orders_list(uuid, uuid, text[], text, integer, bigint, text)', null),
         ('checkout', 'execute', 'function', 'order_changes_list(uuid, uuid, uuid)', null),
         ('checkout', 'execute', 'function', 'checkout_version()', null),
         ('quotes', 'execute', 'function', 'cart_put(jsonb)', null),
         ('quotes', 'execute', 'function', 'cart_get(uuid, uuid)', null),
         ('quotes', 'execute', 'function', 'checkout_version()', null),
         ('quotes', 'select, delete', 'table', 'cart_records', null),
         ('quotes', 'insert', 'table', 'cart_records',
          '{id,buyer_store_id,shipping_address,currency,valid_until,subtotal_cents,discounts_cents,total_cents,tax_included,ad_tokens,created_at,updated_at}'),
         ('quotes', 'update', 'table', 'cart_records',
          '{shipping_address,currency,valid_until,subtotal_cents,discounts_cents,total_cents,tax_included,ad_tokens,updated_at}'),
         ('quotes', 'select, insert, update, delete', 'table', 'cart_vendor_groups', null),
         ('quotes', 'select, insert, update, delete', 'table', 'cart_items', null),
         ('orders', 'execute', 'function', 'order_get(uuid, uuid, uuid)', null),
         ('orders', 'execute', 'function', 'orders_list(uuid, uuid, text[], text, integer, bigint, text)', null),
         ('orders', 'execute', 'function', 'vendor_order_cancel(uuid, text)', null),
         ('orders', 'execute', 'function', 'vendor_order_decide(uuid, jsonb, text)', null),
         ('orders', 'execute', 'function', 'order_line_release(uuid, text, integer, text)', null),
         ('orders', 'execute', 'function', 'order_line_fulfil(uuid, integer, text, jsonb)', null),
         ('orders', 'execute', 'function', 'order_line_return(uuid, text, integer, boolean, text)', null),
         ('orders', 'execute', 'function', 'order_adjust(uuid, bigint, text, text)', null),
         ('orders', 'execute', 'function', 'order_changes_list(uuid, uuid, uuid)', null),
         ('orders', 'execute', 'function', 'vendor_order_extend(uuid, timestamptz)', null),
         ('orders', 'execute', 'function', 'checkout_version()', null),
         ('payments', 'execute', 'function', 'payment_record(uuid, text, text, text, bigint, text, timestamptz, jsonb)', null),
         ('payments', 'execute', 'function', 'checkout_version()', null),
         ('stock', 'execute', 'function', 'inventory_get(uuid[])', null),
         ('stock', 'execute', 'function', 'inventory_set(uuid, integer)', null),
         ('stock', 'execute', 'function', 'inventory_set_many(jsonb)', null),
         ('stock', 'execute', 'function', 'inventory_adjust(uuid, integer, text)', null),
         ('stock', 'execute', 'function', 'inventory_restock(uuid, integer, text)', null),
         ('stock', 'execute', 'function', 'checkout_version()', null),
         ('relay', 'execute', 'function', 'outbox_claim(integer, interval)', null),
         ('relay', 'execute', 'function', 'outbox_extend(uuid, interval)', null),
         ('relay', 'execute', 'function', 'outbox_ack(uuid, uuid[])', null),
         ('relay', 'execute', 'function', 'outbox_fail(uuid, uuid, text, integer)', null),
         ('relay', 'execute', 'function', 'outbox_release(uuid, uuid[])', null),
         ('relay', 'execute', 'function', 'outbox_replay(uuid)', null),
         ('relay', 'execute', 'function', 'outbox_discard(uuid, text)', null),
         ('relay', 'execute', 'function', 'outbox_purge(interval, integer)', null),
         ('relay', 'execute', 'function', 'checkout_metrics()', null),
         ('relay', 'execute', 'function', 'checkout_version()', null),
         ('operators', 'execute', 'function', 'vendor_orders_expire(integer)', null),
         ('operators', 'execute', 'function', 'checkout_metrics()', null),
         ('operators', 'execute', 'function', 'checkout_version()', null),
         ('operators', 'select', 'table', 'checkout_overview', null),
         ('operators', 'select', 'table', 'inventory_levels', null),
         ('operators', 'select', 'table', 'outbox_backlog', null)
$$;

revoke execute on function checkout_privileges() from public;

comment on function checkout_privileges() is
  'What roles get from checkout_grant, checkout_grant_quotes, checkout_grant_orders, checkout_grant_payments, checkout_grant_stock, checkout_grant_relay and '
  'checkout_grant_operators: one row a privilege, with the columns where it is for some of them only.';
