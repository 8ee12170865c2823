// Web shells in PHP. Three things make one: a sink (what runs a command or code), a
// source (what the visitor sends), and the way between them. The rules go from the
// direct way, which is certain, to vocabulary, which is not.
//
// PHP code is recognised by its opening tag; a file without one is not run.

rule webshell_php_only_a_shell : webshell php
{
    meta:
        description = "PHP file that is nothing but the execution of what a visitor sends"
        severity = "Critical"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        // The whole of a small file: perhaps an image's magic, the tag, perhaps a
        // condition or silencing, and the sink with the request right inside it.
        $whole = /^(GIF8[79]a[^<]{0,32})?\s{0,32}<\?(php\s|=|\s)\s{0,32}(@?(error_reporting|set_time_limit|ini_set|ignore_user_abort)\s?\([^)]{0,60}\)\s?;\s{0,8}){0,4}((if|while)\s?\(\s?(!\s?empty|isset)\s?\(\s?\$_(GET|POST|REQUEST|COOKIE|SERVER)\s?\[[^\]]{1,40}\]\s?\)[^{};]{0,60}\)\s{0,8}\{?\s{0,32})?((echo|print|die|exit|return)\s{0,2}\(?\s{0,2}["']?(<pre>["']\s?[.;]\s?)?)?@?(eval|assert|system|passthru|shell_exec|exec|popen|`)\s{0,2}\(?\s{0,2}["'({$]{0,3}@?(base64_decode\s?\(\s?|stripslashes\s?\(\s?|gzinflate\s?\(\s?|str_rot13\s?\(\s?){0,3}@?\$?_(GET|POST|REQUEST|COOKIE|SERVER)\s?[\[{]/ nocase

    condition:
        filesize < 512 and $whole at 0
}

rule webshell_php_request_into_sink : webshell php
{
    meta:
        description = "PHP code that executes what a visitor sends"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase

        // The sink's own parenthesis holds the request, decoded or not. Methods of
        // the same name ($pdo->exec, Foo::system) and functions that end like one
        // (curl_exec) are something else.
        $direct = /(^|[^\w>:$.])(eval|assert|system|passthru|shell_exec|exec|popen|proc_open|pcntl_exec|expect_popen)\s{0,8}\(\s{0,8}["'({]{0,3}@?((base64_decode|stripslashes|urldecode|rawurldecode|gzinflate|gzuncompress|gzdecode|str_rot13|strrev|hex2bin|trim|convert_uudecode|htmlspecialchars_decode|json_decode|implode|join|end|current|reset|array_pop|getallheaders|pack)\s{0,4}\(\s{0,4}(["'][^"'\n]{0,8}["']\s{0,4},\s{0,4})?){0,6}@?\$\{?["']?(_(GET|POST|REQUEST|COOKIE|SERVER|FILES|ENV)|HTTP_(RAW_)?(GET|POST|COOKIE)_(VARS|DATA))\b/ nocase
        // A prefix is joined on: "exec("cd /; " . $_GET[..])", "?>" before eval's argument.
        $prefixed = /(^|[^\w>:$.])(eval|assert|system|passthru|shell_exec|exec|popen|proc_open)\s{0,8}\(\s{0,8}["'][^"'\n]{0,60}["']?\s{0,4}\.?\s{0,4}[{(]?@?((base64_decode|stripslashes|urldecode|rawurldecode|gzinflate|gzuncompress|str_rot13|strrev|hex2bin|trim)\s{0,4}\(\s{0,4}){0,4}\$_(GET|POST|REQUEST|COOKIE)\s{0,4}[\[{]/ nocase
        $input = /(^|[^\w>:$.])(eval|assert|system|passthru|shell_exec|exec|popen)\s{0,8}\(\s{0,8}["'?>. ]{0,8}@?(\w{3,24}\s{0,4}\(\s{0,4}){0,4}(file_get_contents|stream_get_contents|fgets|fread)\s{0,4}\(\s{0,4}(fopen\s{0,4}\(\s{0,4})?["']php:\/\/input/ nocase
        $headers = /(^|[^\w>:$.])(eval|assert|system|passthru|shell_exec|exec)\s{0,8}\(\s{0,8}@?(\w{3,24}\s{0,4}\(\s{0,4}){0,4}(getallheaders|apache_request_headers|get_defined_vars|getenv\s{0,4}\(\s{0,4}["']HTTP_)/ nocase
        // Backticks run a command where an expression stands; comments quote names in them.
        $backtick = /(=|\becho|\bprint|\breturn|\bdie|\bexit)[\s(."']{0,6}`\s{0,4}[^`\n]{0,40}\{?\$_(GET|POST|REQUEST|COOKIE)\s{0,2}[\[{][^`\n]{1,80}`/

    condition:
        // Consoles of development servers evaluate their input too: only a small
        // file that does is called a shell (see webshell_php_evaluates_input).
        filesize < 2MB and $tag
        and (any of ($direct, $prefixed, $headers, $backtick) or ($input and filesize < 4KB))
}

rule webshell_php_evaluates_input : webshell php
{
    meta:
        description = "PHP code that evaluates the body of a request, in a larger program"
        severity = "Warning"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase
        $input = /(^|[^\w>:$.])(eval|assert|system|passthru|shell_exec|exec|popen)\s{0,8}\(\s{0,8}["'?>. ]{0,8}@?(\w{3,24}\s{0,4}\(\s{0,4}){0,4}(file_get_contents|stream_get_contents|fgets|fread)\s{0,4}\(\s{0,4}(fopen\s{0,4}\(\s{0,4})?["']php:\/\/input/ nocase

    condition:
        filesize >= 4KB and filesize < 2MB and $tag and $input
}

rule webshell_php_request_is_the_function : webshell php
{
    meta:
        description = "PHP code that lets a visitor choose the function and its argument"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase

        // $_POST['f']($_POST['a']): the name of the function comes from outside.
        // In prose a parenthesis may follow after a space.
        $call1 = /\$_(GET|POST|REQUEST|COOKIE|SERVER)\s{0,4}(\[[^\]\n]{1,60}\]|\{[^}\n]{1,60}\})\(/
        $call2 = /\$_(GET|POST|REQUEST|COOKIE|SERVER)\s{0,4}(\[[^\]\n]{1,60}\]|\{[^}\n]{1,60}\})\s{1,4}\(\s{0,4}[@$"']/
        // Functions that call what they are given: the callback comes from outside ...
        $callback1 = /\b(array_map|call_user_func(_array)?|forward_static_call(_array)?|register_shutdown_function|register_tick_function|iterator_apply|mb_ereg_replace_callback|set_error_handler|header_register_callback|ob_start|spl_autoload_register)\s{0,4}\(\s{0,4}@?(\w{3,24}\s{0,4}\(\s{0,4}){0,3}\$_(GET|POST|REQUEST|COOKIE|SERVER)\s{0,4}[\[{]/ nocase
        $callback2 = /\b(array_filter|array_walk(_recursive)?|array_reduce|usort|uasort|uksort|array_udiff|array_uintersect|array_diff_ukey|preg_replace_callback|filter_var|sqlite_create_function|array_intersect_ukey)\s{0,4}\([^;\n()]{1,80}(\([^()\n]{0,80}\)[^;\n()]{0,40})?,\s{0,4}@?(array\s{0,4}\(\s{0,4}["']options["']\s{0,4}=>\s{0,4})?((base64_decode|str_rot13|strrev|hex2bin|trim)\s{0,4}\(\s{0,4}){0,2}\$_(GET|POST|REQUEST|COOKIE|SERVER)\s{0,4}[\[{]/ nocase
        // ... or is a sink by name, and its data come from outside.
        $callback3 = /\b(array_map|call_user_func(_array)?|register_shutdown_function|register_tick_function|forward_static_call(_array)?)\s{0,4}\(\s{0,4}["'](assert|system|passthru|shell_exec|exec|eval|popen|create_function)["']\s{0,4},\s{0,4}[^;\n]{0,80}\$_(GET|POST|REQUEST|COOKIE|SERVER)/ nocase
        $callback4 = /\b(array_filter|array_walk(_recursive)?|array_reduce|usort|uasort|uksort|preg_replace_callback|filter_var|array_udiff|array_diff_ukey)\s{0,4}\([^;\n]{0,160}\$_(GET|POST|REQUEST|COOKIE|SERVER)[^;\n]{0,160},\s{0,4}(array\s{0,4}\(\s{0,4}["']options["']\s{0,4}=>\s{0,4})?["'](assert|system|passthru|shell_exec|exec|popen)["']/ nocase
        $reflect = /new\s+ReflectionFunction\s{0,4}\(\s{0,4}(["'](assert|system|passthru|shell_exec|exec)["']|@?\$_(GET|POST|REQUEST|COOKIE))/ nocase
        $create = /\bcreate_function\s{0,4}\(\s{0,4}[^;\n]{0,80}\$_(GET|POST|REQUEST|COOKIE|SERVER)\s{0,4}[\[{]/ nocase
        // preg_replace with the e modifier evaluated its replacement until PHP 7.
        $preg_e = /\bpreg_replace\s{0,4}\(\s{0,4}["'][\/#~|@][^"'\n]{0,60}[\/#~|@][a-zA-Z]{0,6}e[a-zA-Z]{0,6}["']\s{0,4},[^;\n]{0,80}\$_(GET|POST|REQUEST|COOKIE|SERVER)\s{0,4}[\[{]/
        $mb_e = /\bmb_eregi?_replace\s{0,4}\([^;\n]{1,120}\$_(GET|POST|REQUEST|COOKIE|SERVER)[^;\n]{1,80},\s{0,4}["'][a-z]{0,4}e[a-z]{0,4}["']\s{0,4}\)/
        $preg_all = /\bpreg_replace\s{0,4}\(\s{0,4}@?\$_(GET|POST|REQUEST|COOKIE)\s{0,4}[\[{][^;\n]{1,40},\s{0,4}@?\$_(GET|POST|REQUEST|COOKIE)\s{0,4}[\[{]/

    condition:
        filesize < 2MB and $tag
        and any of ($call1, $call2, $callback*, $reflect, $create, $preg_e, $mb_e, $preg_all)
}

rule webshell_php_request_through_variable : webshell php
{
    meta:
        description = "Small PHP file that takes a value from the request and hands it to a sink"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase
        // The value is stored first. YARA has no back references: that it is the
        // same variable follows from the nearness and the size of the file.
        $flow = /\$\w{1,24}\s{0,4}=\s{0,4}[^;\n]{0,80}\$_(GET|POST|REQUEST|COOKIE|SERVER)\s{0,4}[\[{][^;\n]{0,120};[^\x00]{0,400}[^\w>:$.](eval|assert|system|passthru|shell_exec|exec|popen|proc_open)\s{0,4}\(\s{0,4}["']?\{?@?((base64_decode|gzinflate|gzuncompress|str_rot13|strrev|hex2bin|urldecode|trim)\s{0,4}\(\s{0,4}){0,4}\$\w{1,24}\s{0,4}(["'}]{0,2}\s{0,4}[.,)]|;)/ nocase
        $flow_input = /\$\w{1,24}\s{0,4}=\s{0,4}[^;\n]{0,60}(file_get_contents|fopen)\s{0,4}\(\s{0,4}["']php:\/\/input["'][^;\n]{0,60};[^\x00]{0,400}[^\w>:$.](eval|assert|system|passthru|shell_exec|exec|popen|create_function)\s{0,4}\(/ nocase
        $flow_tick = /\$\w{1,24}\s{0,4}=\s{0,4}[^;\n]{0,40}\$_(GET|POST|REQUEST|COOKIE)\s{0,4}[\[{][^;\n]{0,80};[^\x00]{0,200}(=|\becho|\bprint|\breturn|\bdie|\bexit)[\s(."'<>a-z]{0,12}`\s{0,2}[^`\n]{0,20}\{?\$\w{1,24}[^`\n]{0,40}`/
        // A variable function called with the request, in the same small file.
        $dynamic = /[;{}(\s@]\$\w{1,24}\s{0,4}\(\s{0,4}@?((base64_decode|gzinflate|str_rot13|strrev|hex2bin|urldecode|stripslashes)\s{0,4}\(\s{0,4}){0,3}\$_(GET|POST|REQUEST|COOKIE)\s{0,4}[\[{]/

        // Signs of a program with other purposes.
        $care = /escapeshell(arg|cmd)|wp_verify_nonce|check_admin_referer|current_user_can|csrf/ nocase

    condition:
        filesize < 6KB and $tag and any of ($flow*, $dynamic) and not $care
}

rule webshell_php_decoder_chain : webshell php
{
    meta:
        description = "PHP code that evaluates a literal decoded in two or more steps"
        severity = "Error"
        attack = "T1027.013"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase
        $chain = /(^|[^\w>:$.])(eval|assert|create_function)\s{0,4}\(\s{0,4}(["']["']\s{0,4},\s{0,4})?["'?>. ]{0,8}@?(gzinflate|gzuncompress|gzdecode|str_rot13|base64_decode|strrev|convert_uudecode|rawurldecode|urldecode|hex2bin|pack)\s{0,4}\(\s{0,4}["'H*, ]{0,8}(gzinflate|gzuncompress|gzdecode|str_rot13|base64_decode|strrev|convert_uudecode|rawurldecode|urldecode|hex2bin|substr|str_replace|implode|join|file_get_contents)\s{0,4}\(/ nocase

    condition:
        filesize < 4MB and $tag and $chain
}

rule webshell_php_decoded_eval : webshell php
{
    meta:
        description = "PHP code that evaluates an encoded literal"
        // Old themes and licence checks do this too.
        severity = "Warning"
        attack = "T1027.013"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase
        $eval = /(^|[^\w>:$.])(eval|assert)\s{0,4}\(\s{0,4}["'?>. ]{0,8}@?(gzinflate|gzuncompress|gzdecode|str_rot13|base64_decode|strrev|convert_uudecode|rawurldecode|hex2bin)\s{0,4}\(\s{0,4}(["'][A-Za-z0-9+\/=%\\]{16}|\$\w{1,24}\s{0,4}\)\s{0,4}\)\s{0,4};)/ nocase
        // The decoder hides behind a variable; the literal is long.
        $var_eval = /\$\w{1,24}\s{0,4}=\s{0,4}["'][A-Za-z0-9+\/=]{200}/
        $var_call = /(^|[^\w>:$.])eval\s{0,4}\(\s{0,4}\$\w{1,24}\s{0,4}(\(|\[)/ nocase

    condition:
        filesize < 2MB and $tag and ($eval or ($var_eval and $var_call))
}

rule webshell_php_hidden_names : webshell php
{
    meta:
        description = "PHP code that assembles the names of sinks or of the request and uses them"
        severity = "Error"
        attack = "T1027.010"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase

        // "sys"."tem", 'ass'.'ert': a name cut in two at any place ...
        $cut1 = /["'](a["']\s?\.\s?["']ssert|as["']\s?\.\s?["']sert|ass["']\s?\.\s?["']ert|asse["']\s?\.\s?["']rt|asser["']\s?\.\s?["']t)["']/ nocase
        $cut2 = /["'](s["']\s?\.\s?["']ystem|sy["']\s?\.\s?["']stem|sys["']\s?\.\s?["']tem|syst["']\s?\.\s?["']em|syste["']\s?\.\s?["']m)["']/ nocase
        $cut3 = /["'](s["']\s?\.\s?["']hell_exec|sh["']\s?\.\s?["']ell_exec|she["']\s?\.\s?["']ll_exec|shel["']\s?\.\s?["']l_exec|shell["']\s?\.\s?["']_exec|shell_["']\s?\.\s?["']exec|shell_e["']\s?\.\s?["']xec|shell_ex["']\s?\.\s?["']ec|shell_exe["']\s?\.\s?["']c)["']/ nocase
        $cut4 = /["'](p["']\s?\.\s?["']assthru|pa["']\s?\.\s?["']ssthru|pas["']\s?\.\s?["']sthru|pass["']\s?\.\s?["']thru|passt["']\s?\.\s?["']hru|passth["']\s?\.\s?["']ru|passthr["']\s?\.\s?["']u)["']/ nocase
        $cut5 = /["'](_["']\s?\.\s?["']POST|_P["']\s?\.\s?["']OST|_PO["']\s?\.\s?["']ST|_POS["']\s?\.\s?["']T)["']/ nocase
        $cut6 = /["'](_["']\s?\.\s?["']GET|_G["']\s?\.\s?["']ET|_GE["']\s?\.\s?["']T)["']/ nocase
        $cut7 = /["'](_["']\s?\.\s?["']REQUEST|_R["']\s?\.\s?["']EQUEST|_RE["']\s?\.\s?["']QUEST|_REQ["']\s?\.\s?["']UEST|_REQU["']\s?\.\s?["']EST|_REQUE["']\s?\.\s?["']ST|_REQUES["']\s?\.\s?["']T)["']/ nocase
        $cut8 = /["'](b|ba|bas|base|base6|base64|base64_|base64_d|base64_de|base64_dec)["']\s?\.\s?["'](a?s?e?6?4?_?d?e?c?ode)["']/ nocase
        $cut9 = /["'](create|create_|cr|cre|create_f|create_fun|creat)["']\s?\.\s?["']\w{0,8}tion["']/ nocase
        // ... or in fragments too short to be anything else.
        $cut10 = /(["']\w{1,3}["']\s?\.\s?){3}["']\w{1,4}["']/

        // Written backwards, in base64, rot13, hexadecimal or octal escapes.
        $form1 = /["'](tressa|metsys|cexe_llehs|urhtssap|edoced_46esab|etalfnizg|noitcnuf_etaerc|lave)["']/
        $form2 = /["'](YXNzZXJ0|c3lzdGVt|c2hlbGxfZXhlYw==|cGFzc3RocnU=|ZXZhbA==|ZXZhbCg|QGV2YWwo|X1BPU1Q=|X0dFVA==|X1JFUVVFU1Q=|Y3JlYXRlX2Z1bmN0aW9u|YmFzZTY0X2RlY29kZQ==)/
        $form3 = /["'](flfgrz|nffreg|furyy_rkrp|cnffgueh|riny|onfr64_qrpbqr|tmvasyngr)["']/
        $form4 = /["'][^"'\n]{0,4}(\\x73\\x79\\x73\\x74\\x65\\x6d|\\x61\\x73\\x73\\x65\\x72\\x74|\\x65\\x76\\x61\\x6c|\\x73\\x68\\x65\\x6c\\x6c|\\x70\\x61\\x73\\x73\\x74\\x68|\\x62\\x61\\x73\\x65\\x36\\x34|\\x5f\\x(47\\x45|50\\x4f|52\\x45)|\\x65\\x78\\x65\\x63)/ nocase
        $form5 = /["'][^"'\n]{0,4}(\\163\\171\\163\\164|\\141\\163\\163\\145|\\145\\166\\141\\154|\\163\\150\\145\\154|\\160\\141\\163\\163|\\142\\141\\163\\145|\\137\\(107\\105|120\\117|122\\105))/
        $form6 = /\(?\s?chr\s?\(\s?(0x)?[0-9a-f]{2,4}\s?\)\s?(\.\s?chr\s?\(\s?(0x)?[0-9a-f]{2,4}\s?\)\s?){3,20}/ nocase
        // Filled up with noise that a replacement takes out.
        $form7 = /str_i?replace\s?\(\s?["'][^"'\n]{1,8}["']\s?,\s?["']["']\s?,\s?["'][^"'\n]{4,52}["']\s?\)\s?;/
        $form8 = /["'](73797374656d|617373657274|7368656c6c5f65786563|7061737374687275|6576616c|5f504f5354|5f474554)["']/ nocase

        // Names used: a variable function, ${...}, or a callback.
        $use_var = /[;{}(\s@=!]\$\w{1,30}\s{0,2}(\[[^\]\n]{1,30}\]\s{0,2})?\(\s{0,2}[@$"']/
        $use_paren = /["'\])]\s{0,2}\)\s{0,2}\(\s{0,2}@?[$"'\w]/
        $use_super = /\$\{\s{0,2}(["']|\$\w)/
        $use_call = /(call_user_func(_array)?|array_map|array_filter|usort|create_function)\s{0,2}\(\s{0,2}@?\$\w{1,30}\s{0,2},/
        $use_global = /\$GLOBALS\s{0,2}\[\s{0,2}["'][^"'\n]{1,24}["']\s{0,2}\]\s{0,2}(\[[^\]\n]{1,12}\]\s{0,2})?\(/

        // What is executed comes from outside, or is a long literal.
        $src1 = /\$_(GET|POST|REQUEST|COOKIE|SERVER|FILES)\b/
        $src2 = "php://input"
        $src3 = /["'][A-Za-z0-9+\/=]{300}/
        $src4 = /getallheaders\s?\(/

    condition:
        filesize < 512KB and $tag
        and any of ($use_*) and any of ($src*)
        and (
            any of ($cut*, $form1, $form2, $form3, $form4, $form5, $form8)
            or ($form6 and filesize < 64KB)
            or ($form7 and filesize < 8KB)
        )
}

rule webshell_php_without_letters : webshell php
{
    meta:
        description = "PHP code that builds names from punctuation by XOR, NOT or increments"
        severity = "Error"
        attack = "T1027.010"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase
        // ("!"^"@"), ~"\x8c", $_++ a dozen times: nobody writes a function name so.
        $xor1 = /\(?["'][^"'\w\s]{1,24}["']\s{0,2}\^\s{0,2}["'][^"'\n]{1,24}["']\s{0,2}\)?\s{0,2}(\.|;|\()/
        $xor2 = /["'][\x01-\x1f\x7f-\xff%]{1,24}["']\s{0,2}\^\s{0,2}["']/
        $xor3 = /["'](%[0-9a-f]{2}){2,12}["']\s{0,2}\^\s{0,2}["']/ nocase
        $not = /[=(\[{]\s{0,2}~\s{0,2}["']?[\x80-\xff]{3,24}["']?/
        $increment = /(\$_{1,12}\s?\+\+\s?;\s{0,4}){3}/
        $array_letter = /\$_{1,8}\s?=\s?(\[\]|array\(\))\s?\.\s?["']?/ nocase

        $use1 = /\$_{1,12}\s{0,2}(\[[^\]\n]{1,12}\]\s{0,2})?\(\s{0,2}[@$"'\w]/
        $use2 = /\$\$_{1,12}\s{0,2}[\[{]/
        $use3 = /\$\{\s{0,2}["']?[~_$(]/
        $use4 = /[)"']\s{0,2}\)\s{0,2}\(/
        $use5 = /[;{}(\s@=]\$\w{1,20}\s{0,2}\(\s{0,2}@?\$/

    condition:
        filesize < 64KB and $tag
        and (
            (#xor1 >= 2 or $xor2 or $xor3 or $not or $array_letter or $increment)
            and any of ($use*)
        )
}

rule webshell_php_file_writer : webshell php
{
    meta:
        description = "PHP code that writes a visitor's content to a visitor's path"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase
        $put = /\b(file_put_contents|fputs|fwrite)\s{0,4}\(\s{0,4}[^;\n]{0,60}\$_(GET|POST|REQUEST|COOKIE)\s{0,2}[\[{][^;\n]{1,40}[,.][^;\n]{0,60}\$_(GET|POST|REQUEST|COOKIE)\s{0,2}[\[{]/ nocase
        $open = /\b(fwrite|fputs)\s{0,4}\(\s{0,4}fopen\s{0,4}\(\s{0,4}[^;\n]{0,40}\$_(GET|POST|REQUEST|COOKIE)[^;\n]{1,80},\s{0,4}[^;\n]{0,60}\$_(GET|POST|REQUEST|COOKIE)/ nocase
        $fetch = /\b(file_put_contents|fwrite)\s{0,4}\([^;\n]{0,80}(file_get_contents|curl_exec|fopen)\s{0,4}\(\s{0,4}@?\$_(GET|POST|REQUEST|COOKIE)\s{0,2}[\[{]/ nocase
        $copy = /\bcopy\s{0,4}\(\s{0,4}@?\$_(GET|POST|REQUEST|COOKIE)\s{0,2}[\[{][^;\n]{1,40},\s{0,4}@?\$_(GET|POST|REQUEST|COOKIE)\s{0,2}[\[{]/ nocase

    condition:
        filesize < 512KB and $tag and any of ($put, $open, $fetch, $copy)
}

rule webshell_php_bare_uploader : webshell php
{
    meta:
        description = "PHP file that does nothing but keep what is uploaded to it"
        // A very small application may look like this.
        severity = "Warning"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase
        $keep = /\b(move_uploaded_file|copy)\s{0,4}\(\s{0,4}\$_FILES\s{0,2}\[[^\n;]{4,80},\s{0,4}[^;\n]{0,60}(\$_(FILES|GET|POST|REQUEST)|\$\w{1,20})/ nocase
        $care = /session_start|include|require|finfo_|getimagesize|pathinfo|mime_content_type|in_array|preg_match|uniqid|bin2hex|random_bytes|allowed|csrf/ nocase

    condition:
        filesize < 3KB and $tag and $keep and not $care
}

rule webshell_php_includes_request : webshell php
{
    meta:
        description = "PHP code that includes a stream, or a path that a visitor chooses"
        severity = "Warning"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase
        $stream = /\b(include|require)(_once)?\s{0,4}\(?\s{0,4}["'](php:\/\/(input|filter)|data:|expect:\/\/|zip:\/\/|phar:\/\/[^"'\n]{1,60}\.(jpe?g|png|gif))/ nocase
        $request = /\b(include|require)(_once)?\s{0,4}\(?\s{0,4}@?\$_(GET|POST|REQUEST|COOKIE|SERVER)\s{0,2}\[\s{0,2}["']?(HTTP_)?[a-z_0-9]{0,24}["']?\s{0,2}\]\s{0,4}\)?\s{0,4};/ nocase
        $image = /\b(include|require)(_once)?\s{0,4}\(?\s{0,4}["'][^"'\n]{1,120}\.(jpe?g|png|gif|ico|bmp|log)["']\s{0,4}\)?\s{0,4};/ nocase

    condition:
        filesize < 512KB and $tag and any of ($stream, $request, $image)
}

rule webshell_php_in_image : webshell php
{
    meta:
        description = "Image with PHP code inside that runs something"
        severity = "Error"
        attack = "T1036.008"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php\s|=)[^\x00]{0,400}(eval|assert|system|passthru|shell_exec|exec|popen|base64_decode|create_function|include|call_user_func|\$_(GET|POST|REQUEST|COOKIE))\s{0,4}[\[({"']/ nocase

    condition:
        filesize < 8MB
        and (uint32be(0) == 0x47494638 or uint32be(0) == 0x89504e47 or uint16be(0) == 0xffd8
            or uint16be(0) == 0x424d or uint32be(0) == 0x52494646)
        and $tag
}

rule webshell_php_manager : webshell php
{
    meta:
        description = "PHP console: every way to run a command, the machine's description, files and rights"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<\?(php|=|\s)/ nocase
        $request = /\$_(GET|POST|REQUEST|COOKIE)\b/

        // It tries one sink after the other, because hosts disable some of them.
        $run1 = /[^\w>:$]system\s{0,2}\(\s{0,2}["']?\$/
        $run2 = /[^\w>:$]shell_exec\s{0,2}\(\s{0,2}["']?\$/
        $run3 = /[^\w>:$]passthru\s{0,2}\(\s{0,2}["']?\$/
        $run4 = /[^\w>:$]exec\s{0,2}\(\s{0,2}["']?\$/
        $run5 = /[^\w>:$]popen\s{0,2}\(\s{0,2}["']?\$/
        $run6 = /[^\w>:$]proc_open\s{0,2}\(\s{0,2}["']?\$/
        $run7 = /[^\w>:$]eval\s{0,2}\(\s{0,2}["'?>. ]{0,8}\$/
        $run8 = /[^\w>:$]pcntl_exec\s{0,2}\(/

        // What it shows.
        $show1 = "php_uname" nocase
        $show2 = "disable_functions" nocase
        $show3 = "posix_getpwuid" nocase
        $show4 = "getmyuid" nocase
        $show5 = "safe_mode" nocase
        $show6 = "/etc/passwd"
        $show7 = "open_basedir" nocase
        $show8 = "fileperms" nocase
        $show9 = "disk_free_space" nocase
        $show10 = "SERVER_SOFTWARE"
        $show11 = "gethostbyname" nocase
        $show12 = "phpinfo" nocase
        $show13 = "get_current_user" nocase
        $show14 = "whoami"

        // What it does to files.
        $file1 = "move_uploaded_file" nocase
        $file2 = "file_put_contents" nocase
        $file3 = /[^\w>:$]chmod\s{0,2}\(/
        $file4 = /[^\w>:$]unlink\s{0,2}\(/
        $file5 = /[^\w>:$](scandir|opendir|glob)\s{0,2}\(/
        $file6 = /[^\w>:$]rename\s{0,2}\(/
        $file7 = /[^\w>:$]touch\s{0,2}\(/
        $file8 = /[^\w>:$]readfile\s{0,2}\(/

    condition:
        filesize < 512KB and $tag and $request
        and (
            (3 of ($run*) and 3 of ($show*))
            or (2 of ($run*) and 4 of ($show*) and 3 of ($file*))
        )
}

rule webshell_php_prepended : webshell php
{
    meta:
        description = "Server setting that runs code in front of every page, or images as code"
        severity = "Warning"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        // .htaccess and .user.ini.
        $prepend = /auto_(prepend|append)_file\s{0,4}=?\s{0,4}["']?([^\s"';#]{1,120}\.(jpe?g|png|gif|ico|txt|log)|php:\/\/|data:|\/tmp\/|\/dev\/shm\/)/ nocase
        $handler = /(AddType|AddHandler|SetHandler)\s{1,4}["']?(application\/x-httpd-(php|ea-php)[0-9]{0,2}|php[0-9]?-script)["']?\s[^\n#]{0,80}\.(jpe?g|png|gif|ico|txt|bmp)\b/ nocase

    condition:
        filesize < 16KB and any of them
}
