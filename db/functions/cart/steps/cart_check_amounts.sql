-- cart_check_amounts: what the checkout would refuse of this quote, told by its place in it.

create or replace function cart_check_amounts(quote cart_records, groups cart_vendor_groups[], items cart_items[])
returns void
language plpgsql
stable
as $$
declare
  v_text text;
  v_problem jsonb;
  v_vendor_store_id uuid;
  v_field text;
begin
  perform checkout_validate_amounts(cart_check_amounts.quote);
exception when sqlstate 'OC007' then
  get stacked diagnostics v_text = pg_exception_detail;
  v_problem := v_text::jsonb - 'cart_id';

  select item.vendor_store_id, format('.items[%s]', item.item_no - 1) into v_vendor_store_id, v_field
    from (select each.id, each.vendor_store_id, row_number() over (partition by each.vendor_store_id order by each.ordinality) as item_no
            from unnest(cart_check_amounts.items) with ordinality as each) as item
   where item.id = (v_problem ->> 'cart_item_id')::uuid;
  select format('cart.vendor_groups[%s]', part.ordinality - 1)
         || case v_problem ->> 'problem' when 'vendor_subtotal' then '.subtotal_cents' when 'vendor_total' then '.total_cents'
                                         when 'vendor_shipping' then '.shipping_cents' when 'payment_terms' then '.payment_terms'
                                         when 'buyer_is_vendor' then '.vendor_store_id'
                                         when 'vendor_without_items' then '.items' else coalesce(v_field, '') end
    into v_field
    from unnest(cart_check_amounts.groups) with ordinality as part
   where part.vendor_store_id = coalesce(v_vendor_store_id, (v_problem ->> 'vendor_store_id')::uuid);
  perform cart_raise_inconsistent((cart_check_amounts.quote).id, v_problem || jsonb_build_object('field', coalesce(v_field, 'cart')));
end;
$$;

revoke execute on function cart_check_amounts(cart_records, cart_vendor_groups[], cart_items[]) from public;

comment on function cart_check_amounts(cart_records, cart_vendor_groups[], cart_items[]) is
  'Step of cart_put: raises OC007 as checkout_validate_amounts does, with the place in the quote.';
