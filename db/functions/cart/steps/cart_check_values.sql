-- cart_check_values: refuses the first value of a quote that is none of its field, is missing, or has no field.
--
-- A misspelt line_total_cents would turn a gross line into a net one, so what is no field is refused. Types and ranges are
-- those of the columns: an existing database may have int amounts, an enum of units, more fields in an address.
-- Null is as good as left out.

create or replace function cart_check_values(quote jsonb)
returns void
language plpgsql
stable
as $$
declare
  v_quote alias for quote;
  v_field text;
  v_problem text;
begin
  with known (part, owner, name, kind, is_required) as (
    select listed.part, listed.owner::regclass, listed.name, listed.kind, listed.is_required
      from (values
        ('cart', 'cart_records', 'id', 'uuid', true),
        ('cart', 'cart_records', 'buyer_store_id', 'uuid', true),
        ('cart', 'cart_records', 'currency', 'currency', true),
        ('cart', 'cart_records', 'valid_until', 'instant', true),
        ('cart', 'cart_records', 'shipping_address', 'object', false),
        ('cart', 'cart_records', 'ad_tokens', 'array', false),
        ('cart', 'cart_records', 'subtotal_cents', 'whole', false),
        ('cart', 'cart_records', 'discounts_cents', 'whole', false),
        ('cart', 'cart_records', 'total_cents', 'whole', false),
        ('cart', 'cart_records', 'tax_included', 'boolean', false),
        ('group', 'cart_vendor_groups', 'id', 'uuid', false),
        ('group', 'cart_vendor_groups', 'vendor_store_id', 'uuid', true),
        ('group', 'cart_vendor_groups', 'status', 'text', false),
        ('group', 'cart_vendor_groups', 'subtotal_cents', 'whole', true),
        ('group', 'cart_vendor_groups', 'discounts_cents', 'whole', false),
        ('group', 'cart_vendor_groups', 'line_discounts_cents', 'whole', false),
        ('group', 'cart_vendor_groups', 'promo_discount_cents', 'whole', false),
        ('group', 'cart_vendor_groups', 'total_cents', 'whole', true),
        ('group', 'cart_vendor_groups', 'promo', 'object', false),
        ('group', 'cart_vendor_groups', 'shipping_cents', 'whole', false),
        ('group', 'cart_vendor_groups', 'shipping_tax_cents', 'whole', false),
        ('group', 'cart_vendor_groups', 'shipping_line', 'object', false),
        ('group', 'cart_vendor_groups', 'minimum_cents', 'whole', false),
        ('group', 'cart_vendor_groups', 'payment_terms', 'object', false),
        ('group', 'cart_vendor_groups', 'warnings', 'array', false),
        ('item', 'cart_items', 'id', 'uuid', false),
        ('item', 'cart_items', 'product_id', 'uuid', true),
        ('item', 'cart_items', 'title', 'text', false),
        ('item', 'cart_items', 'category', 'text', false),
        ('item', 'cart_items', 'unit', 'text', false),
        ('item', 'cart_items', 'quantity', 'whole', true),
        ('item', 'cart_items', 'moq', 'whole', false),
        ('item', 'cart_items', 'max_qty', 'whole', false),
        ('item', 'cart_items', 'unit_price_cents', 'whole', true),
        ('item', 'cart_items', 'line_subtotal_cents', 'whole', true),
        ('item', 'cart_items', 'line_discounts_cents', 'whole', false),
        ('item', 'cart_items', 'line_total_cents', 'whole', false),
        ('item', 'cart_items', 'tax_cents', 'whole', false),
        ('item', 'cart_items', 'tax_lines', 'array', false),
        ('item', 'cart_items', 'applied_volume_discount', 'object', false),
        ('item', 'cart_items', 'warnings', 'array', false),
        ('item', 'cart_items', 'status', 'text', false)
      ) as listed (part, owner, name, kind, is_required)
     union all
    select nested.part, null, nested.name, nested.kind, nested.is_required
      from (values
        ('shipping', 'code', 'text', true),
        ('shipping', 'title', 'text', false),
        ('terms', 'code', 'text', true),
        ('terms', 'net_days', 'whole', true),
        ('tax', 'code', 'text', false),
        ('tax', 'title', 'text', false),
        ('tax', 'rate', 'text', false),
        ('tax', 'amount_cents', 'whole', true)
      ) as nested (part, name, kind, is_required)
     union all
    select 'address', 'address_t'::regclass, own.attname, case type.typcategory when 'N' then 'number' else 'text' end, false
      from pg_attribute as own
      join pg_type as type on type.oid = own.atttypid
     where own.attrelid = 'address_t'::regclass and own.attnum > 0 and not own.attisdropped
  ), fields as materialized (
    select known.part, known.name, known.is_required,
           case type.typtype when 'e' then 'enum' else known.kind end as kind,
           case own.atttypid when 'smallint'::regtype then 32767 when 'integer'::regtype then 2147483647
                             when 'bigint'::regtype then 9223372036854775807
                             when 'varchar'::regtype then nullif(own.atttypmod, -1) - 4
                             else case known.kind when 'text' then case when known.owner is null then 200 end
                                                  when 'whole' then case known.name when 'net_days' then 3660 else 9223372036854775807 end end end as most,
           (select array_agg(value.enumlabel::text order by value.enumsortorder)
              from pg_enum as value where value.enumtypid = type.oid) as labels
      from known
      left join pg_attribute as own on own.attrelid = known.owner and own.attname = known.name and not own.attisdropped
      left join pg_type as type on type.oid = own.atttypid
     where known.owner is null or own.attname is not null
  ), parts (part, path, group_no, item_no, body) as materialized (
    -- materialized: no group goes on with each of its items
    select 'cart', 'cart', 0::bigint, 0::bigint, v_quote - 'vendor_groups'
     union all
    select 'address', 'cart.shipping_address', 0, 0, v_quote -> 'shipping_address'
     where jsonb_typeof(v_quote -> 'shipping_address') = 'object'
     union all
    select 'group', format('cart.vendor_groups[%s]', part.position - 1), part.position, 0, part.body - 'items'
      from jsonb_array_elements(v_quote -> 'vendor_groups') with ordinality as part (body, position)
     union all
    select 'item', format('cart.vendor_groups[%s].items[%s]', part.position - 1, item.position - 1), part.position, item.position, item.body
      from jsonb_array_elements(v_quote -> 'vendor_groups') with ordinality as part (body, position)
     cross join jsonb_array_elements(case jsonb_typeof(part.body -> 'items') when 'array' then part.body -> 'items' else '[]' end)
                with ordinality as item (body, position)
  ), nested (part, path, group_no, item_no, body) as materialized (
    select part.part, part.path, part.group_no, part.item_no, part.body from parts as part
     union all
    select member.part, part.path || '.' || member.name, part.group_no, part.item_no, part.body -> member.name
      from parts as part
      join (values ('group', 'shipping_line', 'shipping'), ('group', 'payment_terms', 'terms')) as member (owner, name, part) on member.owner = part.part
     where jsonb_typeof(part.body -> member.name) = 'object'
     union all
    select 'tax', format('%s.tax_lines[%s]', part.path, line.position - 1), part.group_no, part.item_no, line.body
      from parts as part
     cross join jsonb_array_elements(case jsonb_typeof(part.body -> 'tax_lines') when 'array' then part.body -> 'tax_lines' else '[]' end)
                with ordinality as line (body, position)
     where part.part = 'item' and jsonb_typeof(line.body) = 'object'
  ), problems (group_no, item_no, field, problem) as (
    select part.group_no, part.item_no, part.path || '.' || left(member.key, 60),
           case when field.name is null then 'is not a field of a quote'
                else cart_value_problem(member.value, field.kind, field.most, field.labels) end
      from nested as part
     cross join jsonb_each(part.body) as member
      left join fields as field on field.part = part.part and field.name = member.key
     union all
    select part.group_no, part.item_no, part.path || '.' || field.name, 'is required'
      from nested as part
      join fields as field on field.part = part.part and field.is_required
     where coalesce(jsonb_typeof(part.body -> field.name), 'null') = 'null'
     union all
    select part.group_no, part.item_no, format('%s.tax_lines[%s]', part.path, line.position - 1), 'must be a JSON object'
      from parts as part
     cross join jsonb_array_elements(case jsonb_typeof(part.body -> 'tax_lines') when 'array' then part.body -> 'tax_lines' else '[]' end)
                with ordinality as line (body, position)
     where part.part = 'item' and jsonb_typeof(line.body) <> 'object'
     union all
    select 0, 0, format('cart.ad_tokens[%s]', token.position - 1), 'must be a text'
      from jsonb_array_elements(case jsonb_typeof(v_quote -> 'ad_tokens') when 'array' then v_quote -> 'ad_tokens' else '[]' end)
           with ordinality as token (value, position)
     where jsonb_typeof(token.value) <> 'string'
  )
  select told.field, told.problem into v_field, v_problem
    from problems as told
   where told.problem is not null
   order by told.group_no, told.item_no, told.field collate "C"
   limit 1;
  if found then
    perform checkout_raise_invalid(v_field, v_problem);
  end if;
end;
$$;

revoke execute on function cart_check_values(jsonb) from public;

comment on function cart_check_values(jsonb) is
  'Step of cart_put: raises OC005 with the path of the first value that its field cannot hold, that is missing, or that no field of a quote has.';
