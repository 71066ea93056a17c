-- checkout_apply_grants: gives every remembered role its rights again. Each deployment ends with it, since a function
-- that was dropped and made anew has lost its grants.

create or replace function checkout_apply_grants()
returns void
language plpgsql
set search_path from current
as $$
declare
  v_role record;
  v_grant text;
begin
  -- a loop, because each grant is a statement of its own; a role that was dropped meanwhile is passed over
  for v_role in
    select remembered.role_name, remembered.scope
      from checkout_roles as remembered
      join pg_roles on rolname = remembered.role_name
  loop
    execute format('grant usage on schema %I to %I', current_schema(), v_role.role_name);
    foreach v_grant in array case v_role.scope
      when 'checkout' then array[
        'execute on function checkout_execute(uuid, uuid, text, jsonb, text, jsonb, text, text)',
        'execute on function checkout_result(uuid, uuid)',
        'execute on function checkout_version()']
      when 'quotes' then array[
        'execute on function cart_put(jsonb)',
        'execute on function checkout_version()',
        'select, delete on table cart_records',
        'insert (id, buyer_store_id, shipping_address, currency, valid_until, subtotal_cents, discounts_cents, total_cents, ad_tokens, created_at, updated_at),'
        ' update (shipping_address, currency, valid_until, subtotal_cents, discounts_cents, total_cents, ad_tokens, updated_at) on table cart_records',
        'select, insert, update, delete on table cart_vendor_groups',
        'select, insert, update, delete on table cart_items']
      when 'orders' then array[
        'execute on function vendor_order_cancel(uuid, text)',
        'execute on function order_line_release(uuid, text)',
        'execute on function order_line_fulfil(uuid)',
        'execute on function checkout_version()']
      end
    loop
      execute format('grant %s to %I', v_grant, v_role.role_name);
    end loop;
  end loop;
end;
$$;

revoke execute on function checkout_apply_grants() from public;

comment on function checkout_apply_grants() is 'Step of a deployment: grants again to every role that checkout_grant, checkout_grant_quotes or checkout_grant_orders was called for.';
