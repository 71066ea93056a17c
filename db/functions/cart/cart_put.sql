-- cart_put: writes a quote, replacing the cart's groups and items under its lock.
--
-- The cart row is updated in the same transaction: a checkout whose snapshot is older than that meets a serialization
-- failure instead of half a quote. Contradictions are refused here, not at the checkout.

create or replace function cart_put(cart jsonb)
returns jsonb
language plpgsql
security definer
set search_path from current
as $$
declare
  v_quote constant jsonb := cart_put.cart;
  v_cart cart_records;
  v_groups cart_vendor_groups[];
  v_items cart_items[];
  v_line cart_items;
  -- an existing database may have an enum here: what its column defaults to is its first value
  v_unit constant text := coalesce((
    select value.enumlabel
      from pg_attribute as attribute
      join pg_enum as value on value.enumtypid = attribute.atttypid
     where attribute.attrelid = 'cart_items'::regclass and attribute.attname = 'unit'
     order by value.enumsortorder
     limit 1), '');
  v_now timestamptz;
  v_subtotal numeric;
  v_total numeric;
begin
  perform cart_check_fields('cart', v_quote,
    '{id,buyer_store_id,currency,valid_until,shipping_address,ad_tokens,subtotal_cents,discounts_cents,total_cents,vendor_groups}');
  -- Warnings and their like travel on into orders and events, and many a JSON reader ends at a depth that jsonb still takes.
  if jsonb_path_exists(v_quote, 'strict $.**{33}') then
    perform checkout_raise_invalid('cart', 'must not be nested deeper than 32 levels');
  -- PostgreSQL takes its own text form of an array or a record as well, and when it cannot, repeats it
  elsif jsonb_typeof(v_quote -> 'ad_tokens') not in ('array', 'null') then
    perform checkout_raise_invalid('cart.ad_tokens', 'must be an array');
  elsif jsonb_typeof(v_quote -> 'shipping_address') not in ('object', 'null') then
    perform checkout_raise_invalid('cart.shipping_address', 'must be an object');
  elsif jsonb_typeof(v_quote -> 'vendor_groups') is distinct from 'array' then
    perform checkout_raise_invalid('cart.vendor_groups', 'must be an array');
  elsif exists (select from jsonb_array_elements(v_quote -> 'vendor_groups') as part (body)
                 where jsonb_typeof(part.body -> 'items') not in ('array', 'null')) then
    perform checkout_raise_invalid('cart.vendor_groups[].items', 'must be an array');
  end if;

  begin
    v_cart := jsonb_populate_record(null::cart_records, v_quote - 'vendor_groups');
    if v_cart.id is null or v_cart.buyer_store_id is null or v_cart.currency is null or v_cart.valid_until is null then
      perform checkout_raise_invalid('cart', 'must have id, buyer_store_id, currency and valid_until');
    elsif isfinite(v_cart.valid_until) and (v_cart.valid_until < '0001-01-01Z' or v_cart.valid_until >= '10000-01-01Z') then
      perform checkout_raise_invalid('cart.valid_until', 'must be in the years 1 to 9999');   -- as RFC 3339 has them
    end if;

    select array_agg(jsonb_populate_record(null::cart_vendor_groups,
             jsonb_build_object('id', checkout_uuid(), 'status', 'ok', 'warnings', '[]'::jsonb)
             || (part.body - 'items') || jsonb_build_object('cart_id', v_cart.id)) order by part.position)
      into v_groups
      from jsonb_array_elements(v_quote -> 'vendor_groups') with ordinality as part (body, position)
     where cart_check_fields('cart.vendor_groups[]', part.body,
             '{id,vendor_store_id,status,subtotal_cents,discounts_cents,line_discounts_cents,promo_discount_cents,total_cents,promo,warnings,items}');

    select array_agg(jsonb_populate_record(null::cart_items,
             jsonb_build_object('id', checkout_uuid(), 'title', '', 'category', '', 'unit', v_unit, 'moq', 1,
                                'status', 'ok', 'warnings', '[]'::jsonb)
             || item.body || jsonb_build_object('cart_id', v_cart.id, 'vendor_store_id', part.body -> 'vendor_store_id'))
             order by part.position, item.position)
      into v_items
      from jsonb_array_elements(v_quote -> 'vendor_groups') with ordinality as part (body, position)
     cross join jsonb_array_elements(case jsonb_typeof(part.body -> 'items') when 'array' then part.body -> 'items' else '[]' end)
                with ordinality as item (body, position)
     where cart_check_fields('cart.vendor_groups[].items[]', item.body,
             '{id,product_id,title,category,unit,quantity,moq,max_qty,unit_price_cents,line_subtotal_cents,line_discounts_cents,'
             'line_total_cents,applied_volume_discount,warnings,status}');
  exception when data_exception then
    -- cut short: it repeats the value, which may be endless, or a token in the wrong place
    raise exception 'the quote has a value of the wrong type: %', left(sqlerrm, 100)
      using errcode = 'OC005',
            detail = jsonb_build_object('field', 'cart', 'problem', 'has a value of the wrong type'),
            hint = 'Correct the request and send it again.';
  end;

  -- they are copied to orders as they are, and a list is appended to
  if exists (select from unnest(v_groups) as part where jsonb_typeof(part.warnings) <> 'array') then
    perform checkout_raise_invalid('cart.vendor_groups[].warnings', 'must be an array');
  elsif exists (select from unnest(v_items) as item where jsonb_typeof(item.warnings) <> 'array') then
    perform checkout_raise_invalid('cart.vendor_groups[].items[].warnings', 'must be an array');
  elsif exists (select from unnest(v_groups) as part where jsonb_typeof(part.promo) <> 'object') then
    perform checkout_raise_invalid('cart.vendor_groups[].promo', 'must be an object');
  elsif exists (select from unnest(v_items) as item where jsonb_typeof(item.applied_volume_discount) <> 'object') then
    perform checkout_raise_invalid('cart.vendor_groups[].items[].applied_volume_discount', 'must be an object');
  end if;

  select item.* into v_line
    from unnest(v_items) as item
   where item.line_total_cents <> item.line_subtotal_cents::numeric - coalesce(item.line_discounts_cents, 0)
   order by item.id
   limit 1;
  if found then
    perform cart_raise_inconsistent(v_cart.id, jsonb_build_object(
      'problem', 'line_amounts', 'cart_item_id', v_line.id,
      'expected', v_line.line_subtotal_cents::numeric - coalesce(v_line.line_discounts_cents, 0), 'found', v_line.line_total_cents));
  end if;

  select coalesce(sum(part.subtotal_cents), 0), coalesce(sum(part.total_cents), 0) into v_subtotal, v_total
    from unnest(v_groups) as part
   where part.status = 'ok';
  if v_cart.subtotal_cents <> v_subtotal then
    perform cart_raise_inconsistent(v_cart.id, jsonb_build_object('problem', 'cart_subtotal', 'expected', v_subtotal, 'found', v_cart.subtotal_cents));
  elsif v_cart.total_cents <> v_total then
    perform cart_raise_inconsistent(v_cart.id, jsonb_build_object('problem', 'cart_total', 'expected', v_total, 'found', v_cart.total_cents));
  elsif v_cart.discounts_cents <> v_subtotal - v_total then
    perform cart_raise_inconsistent(v_cart.id, jsonb_build_object(
      'problem', 'cart_discounts', 'expected', v_subtotal - v_total, 'found', v_cart.discounts_cents));
  end if;

  begin
    insert into cart_records (id, buyer_store_id, status, currency, valid_until, created_at, updated_at)
    values (v_cart.id, v_cart.buyer_store_id, 'active', v_cart.currency, v_cart.valid_until, clock_timestamp(), clock_timestamp())
        on conflict do nothing;
    perform cart_lock_active(v_cart.buyer_store_id, v_cart.id);
    v_now := clock_timestamp();

    update cart_records as target
       set currency = v_cart.currency,
           valid_until = v_cart.valid_until,
           shipping_address = v_cart.shipping_address,
           ad_tokens = v_cart.ad_tokens,
           subtotal_cents = v_subtotal,
           discounts_cents = v_subtotal - v_total,
           total_cents = v_total,
           updated_at = v_now
     where target.id = v_cart.id
    returning target.* into v_cart;

    delete from cart_items as old where old.cart_id = v_cart.id;
    delete from cart_vendor_groups as old where old.cart_id = v_cart.id;

    insert into cart_vendor_groups (id, cart_id, vendor_store_id, status, subtotal_cents, discounts_cents, line_discounts_cents,
                                    promo_discount_cents, total_cents, promo, warnings, created_at, updated_at)
    select part.id, part.cart_id, part.vendor_store_id, part.status, part.subtotal_cents, part.subtotal_cents - part.total_cents,
           coalesce(part.line_discounts_cents, 0), coalesce(part.promo_discount_cents, 0), part.total_cents,
           part.promo, coalesce(part.warnings, '[]'), v_cart.updated_at, v_cart.updated_at
      from unnest(v_groups) as part;

    insert into cart_items (id, cart_id, product_id, vendor_store_id, title, category, unit, quantity, moq, max_qty, unit_price_cents,
                            line_subtotal_cents, line_discounts_cents, line_total_cents, applied_volume_discount, warnings, status,
                            created_at, updated_at)
    select item.id, item.cart_id, item.product_id, item.vendor_store_id, item.title, item.category, item.unit, item.quantity, item.moq,
           item.max_qty, item.unit_price_cents, item.line_subtotal_cents, item.line_discounts_cents, item.line_total_cents,
           item.applied_volume_discount, coalesce(item.warnings, '[]'), item.status,
           v_cart.updated_at, v_cart.updated_at
      from unnest(v_items) as item;
  exception
    when not_null_violation or numeric_value_out_of_range then
      raise exception 'the quote lacks a value or has one out of range: %', sqlerrm
        using errcode = 'OC005',
              detail = jsonb_build_object('field', 'cart', 'problem', 'lacks a value or has one out of range'),
              hint = 'Correct the request and send it again.';
    when check_violation or unique_violation or foreign_key_violation then
      declare
        v_constraint text;
      begin
        get stacked diagnostics v_constraint = constraint_name;
        perform cart_raise_inconsistent(v_cart.id, jsonb_build_object('problem', 'constraint', 'constraint', v_constraint));
      end;
  end;

  perform checkout_validate_amounts(v_cart);
  return checkout_result(v_cart.buyer_store_id, v_cart.id);
end;
$$;

revoke execute on function cart_put(jsonb) from public;

comment on function cart_put(jsonb) is
  'Writes a quote {id, buyer_store_id, currency, valid_until, shipping_address, ad_tokens, vendor_groups: [{vendor_store_id, '
  'subtotal_cents, total_cents, promo, warnings, items: [{product_id, title, unit, quantity, unit_price_cents, line_subtotal_cents, '
  'line_discounts_cents, line_total_cents, ...}]}]}, amounts in cents, over an active cart or as a new one, under the cart''s lock. '
  'Cart totals are those of its ok groups. Returns what checkout_result returns. Raises OC001 another buyer''s cart, OC002 a '
  'cart that is not active, OC005 a malformed quote, OC007 figures that contradict each other (both in DETAIL), OC009 a converted cart.';
