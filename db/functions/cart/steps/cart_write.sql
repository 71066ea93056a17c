-- cart_write: writes a quote that was checked, over what the cart held.

create or replace function cart_write(quote cart_records, groups cart_vendor_groups[], items cart_items[])
returns cart_records
language plpgsql
as $$
declare
  v_quote alias for quote;
  v_cart cart_records;
  v_now timestamptz;
  v_name text;
  v_table text;
  v_rows bigint;
  v_left bigint;
begin
  begin
    perform cart_open(v_quote);
    v_now := clock_timestamp();   -- not before: the lock may have been waited for

    update cart_records as target
       set currency = v_quote.currency,
           valid_until = v_quote.valid_until,
           shipping_address = v_quote.shipping_address,
           ad_tokens = v_quote.ad_tokens,
           subtotal_cents = v_quote.subtotal_cents,
           discounts_cents = v_quote.discounts_cents,
           total_cents = v_quote.total_cents,
           tax_included = coalesce(v_quote.tax_included, false),
           updated_at = v_now
     where target.id = v_quote.id
    returning target.* into v_cart;
    get diagnostics v_rows = row_count;
    if v_rows <> 1 then
      perform checkout_raise_rows(v_quote.id, 'cart_records', 1, v_rows);
    end if;

    delete from cart_items as old where old.cart_id = v_cart.id;
    get diagnostics v_rows = row_count;
    v_left := (select count(*) from cart_items as old where old.cart_id = v_cart.id);
    if v_left > 0 then
      perform checkout_raise_rows(v_cart.id, 'cart_items', v_rows + v_left, v_rows);
    end if;
    delete from cart_vendor_groups as old where old.cart_id = v_cart.id;
    get diagnostics v_rows = row_count;
    v_left := (select count(*) from cart_vendor_groups as old where old.cart_id = v_cart.id);
    if v_left > 0 then
      perform checkout_raise_rows(v_cart.id, 'cart_vendor_groups', v_rows + v_left, v_rows);
    end if;

    insert into cart_vendor_groups (id, cart_id, vendor_store_id, status, subtotal_cents, discounts_cents, line_discounts_cents,
                                    promo_discount_cents, total_cents, promo, shipping_cents, shipping_tax_cents, shipping_line, minimum_cents, payment_terms, warnings,
                                    created_at, updated_at)
    select part.id, part.cart_id, part.vendor_store_id, part.status, part.subtotal_cents, part.discounts_cents,
           coalesce(part.line_discounts_cents, 0), coalesce(part.promo_discount_cents, 0), part.total_cents,
           part.promo, part.shipping_cents, part.shipping_tax_cents, part.shipping_line, part.minimum_cents, part.payment_terms, part.warnings,
           v_cart.updated_at, v_cart.updated_at
      from unnest(cart_write.groups) as part;
    get diagnostics v_rows = row_count;
    if v_rows <> cardinality(cart_write.groups) then
      perform checkout_raise_rows(v_cart.id, 'cart_vendor_groups', cardinality(cart_write.groups), v_rows);
    end if;

    insert into cart_items (id, cart_id, product_id, vendor_store_id, title, category, unit, quantity, moq, max_qty, unit_price_cents,
                            line_subtotal_cents, line_discounts_cents, line_total_cents, tax_cents, tax_lines, applied_volume_discount, warnings, status,
                            created_at, updated_at)
    select item.id, item.cart_id, item.product_id, item.vendor_store_id, item.title, item.category, item.unit, item.quantity, item.moq,
           item.max_qty, item.unit_price_cents, item.line_subtotal_cents, item.line_discounts_cents, item.line_total_cents,
           item.tax_cents, item.tax_lines, item.applied_volume_discount, item.warnings, item.status,
           v_cart.updated_at, v_cart.updated_at
      from unnest(cart_write.items) as item;
    get diagnostics v_rows = row_count;
    if v_rows <> cardinality(cart_write.items) then
      perform checkout_raise_rows(v_cart.id, 'cart_items', cardinality(cart_write.items), v_rows);
    end if;
  exception
    when not_null_violation then
      get stacked diagnostics v_name = column_name, v_table = table_name;
      perform checkout_raise_invalid('cart', format('has no value for the column %s of %s', v_name, v_table));
    when unique_violation or foreign_key_violation or check_violation or exclusion_violation then
      get stacked diagnostics v_name = constraint_name;
      perform cart_raise_inconsistent(v_quote.id, jsonb_build_object('problem', 'constraint', 'constraint', v_name));
  end;
  return v_cart;
end;
$$;

revoke execute on function cart_write(cart_records, cart_vendor_groups[], cart_items[]) from public;

comment on function cart_write(cart_records, cart_vendor_groups[], cart_items[]) is
  'Step of cart_put: writes a quote under its cart''s lock and returns the cart. Raises OC001, OC002 and OC009 as cart_open does, OC007 naming '
  'a constraint, of ours or of the host, or the table of which a trigger keeps a row from being written, OC005 for a value that a column of the host requires.';
