// Web shells for other servers: ASP and ASP.NET, Perl CGI, Node.

rule webshell_asp_eval_of_request : webshell asp
{
    meta:
        description = "ASP or ASP.NET page that evaluates what a visitor sends"
        severity = "Critical"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $classic = /<%[^%]{0,80}\b(eval|execute|executeglobal)\s{0,4}\(?\s{0,4}request\s{0,4}(\.\s{0,2}(item|form|querystring|cookies|servervariables)\s{0,2})?[\(\["']/ nocase
        $jscript = /\beval\s{0,4}\(\s{0,4}(System\.Text\.Encoding\.\w{1,16}\.GetString\s{0,2}\(\s{0,2}(System\.)?Convert\.FromBase64String\s{0,2}\(\s{0,2})?Request\s{0,4}(\.\s{0,2}(Item|Form|QueryString|Params|Cookies|Headers)\s{0,2})?[\[(][^;\n]{1,80},\s{0,4}["']unsafe["']/ nocase

        $tag = /<%|<script\s{1,4}[^>]{0,60}runat/ nocase

    condition:
        // A page, not a text about one: the first bytes are ASP.
        filesize < 2KB and $tag in (0..32) and any of ($classic, $jscript)
}

rule webshell_asp_eval_of_request_inside : webshell asp
{
    meta:
        description = "Code that evaluates what a visitor sends, inside a larger ASP or ASP.NET page"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $classic = /<%[^%]{0,80}\b(eval|execute|executeglobal)\s{0,4}\(?\s{0,4}request\s{0,4}(\.\s{0,2}(item|form|querystring|cookies|servervariables)\s{0,2})?[\(\["']/ nocase
        $jscript = /\beval\s{0,4}\(\s{0,4}(System\.Text\.Encoding\.\w{1,16}\.GetString\s{0,2}\(\s{0,2}(System\.)?Convert\.FromBase64String\s{0,2}\(\s{0,2})?Request\s{0,4}(\.\s{0,2}(Item|Form|QueryString|Params|Cookies|Headers)\s{0,2})?[\[(][^;\n]{1,80},\s{0,4}["']unsafe["']/ nocase


    condition:
        filesize < 512KB and any of them
}

rule webshell_aspx_command : webshell asp
{
    meta:
        description = "ASP.NET page that starts a shell by request"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<%@\s{0,4}(Page|WebHandler|WebService|Import|Language)/ nocase
        $source = /\bRequest\s{0,2}(\.\s{0,2}(Item|Form|QueryString|Params|Headers|Cookies|InputStream|BinaryRead)\b|\[)/
        $control = /runat\s{0,2}=\s{0,2}["']?server/ nocase
        $start1 = /\bProcess\s{0,2}\.\s{0,2}Start\s{0,2}\(/
        $start2 = /\bProcessStartInfo\b/
        $start3 = /CreateObject\s{0,2}\(\s{0,2}["']WScript\.Shell["']/ nocase
        $shell = /["'](cmd(\.exe)?|powershell(\.exe)?|\/bin\/(ba)?sh|sh|bash|c:\\{1,2}windows\\{1,2}system32\\{1,2}cmd\.exe)["']|\/c\s/ nocase
        $output = /RedirectStandardOutput|StandardOutput|\.StdOut\b/

    condition:
        filesize < 256KB and $tag and ($source or $control) and any of ($start*) and $shell and $output
}

rule webshell_aspx_assembly_from_request : webshell asp
{
    meta:
        description = "ASP.NET page that loads an assembly out of the request"
        severity = "Error"
        attack = "T1620"
        reference = "none"
        version = 1

    strings:
        $tag = /<%@\s{0,4}(Page|WebHandler|WebService|Import|Language)/ nocase
        $load = /Assembly\s{0,2}\.\s{0,2}Load\s{0,2}\(|\.GetMethod\s{0,2}\(\s{0,2}"Load"/
        $run = /\.\s{0,2}CreateInstance\s{0,2}\(|\.\s{0,2}Invoke\s{0,2}\(/
        $source = /\bRequest\s{0,2}(\.\s{0,2}(Item|Form|QueryString|Params|Headers|Cookies|InputStream|BinaryRead)\b|\[)|\bContext\.Request\b/
        $decode = /FromBase64String|RijndaelManaged|AesManaged|Aes\.Create|BinaryRead|CreateDecryptor/

    condition:
        filesize < 256KB and all of them
}

rule webshell_perl_cgi : webshell perl
{
    meta:
        description = "Perl CGI program that runs what a visitor sends"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $perl = /^#!\s?\/[^\n]{0,40}perl|\nuse\s+(strict|CGI|warnings)\b/
        $web1 = /Content-[Tt]ype:\s{0,2}text\//
        $web2 = /->\s{0,2}header\b/
        $direct = /(system|exec|qx|eval|open\s{0,2}\(?\s{0,2}\w{1,20}\s{0,2},|`)\s{0,4}[\s({"'`|-]{1,6}[^;\n]{0,40}((\$\w{1,16}\s{0,2}->\s{0,2})?param\s{0,2}\(\s{0,2}["']|\$ENV\{\s{0,2}["']?(QUERY_STRING|HTTP_\w{1,24})|\$(FORM|in|form|query|input)\{)/
        $var = /\$\w{1,20}\s{0,4}=\s{0,4}[^;\n]{0,60}((\$\w{1,16}\s{0,2}->\s{0,2}|\b)param\s{0,2}\(\s{0,2}["']|\$ENV\{\s{0,2}["']?(QUERY_STRING|HTTP_\w{1,24}))[^\x00]{0,500}(\b(system|exec|eval|qx)\s{0,4}[({ ]\s{0,2}["']?\$\w{1,20}|`\s{0,2}\$\w{1,20}|open\s{0,2}\(?\s{0,2}(my\s+)?\$?\w{1,20}\s{0,2},\s{0,2}["'](-\||\$\w{1,20}[^"'\n]{0,20}\|))/

    condition:
        filesize < 16KB and $perl and any of ($web*) and any of ($direct, $var)
}

rule webshell_node : webshell node
{
    meta:
        description = "JavaScript (Node) server code that executes what a visitor sends"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $direct = /\b(exec|execSync|spawn|spawnSync|execFile|execFileSync|eval|Function|runInNewContext|runInThisContext)\s{0,4}\(\s{0,4}(["'`](\/bin\/)?(ba)?sh["'`]\s{0,2},\s{0,2}\[\s{0,2}["'`]-c["'`]\s{0,2},\s{0,2})?(\w{1,20}\s{0,2}[.(]\s{0,2}){0,3}\b(req|request|ctx|context)(\.request)?\.(query|body|params|headers|cookies|url)\b/
        $parsed = /\b(exec|execSync|spawn|spawnSync|eval)\s{0,4}\(\s{0,4}[^;\n]{0,40}(url\.parse\s{0,2}\([^;\n]{0,60}\.query|searchParams\.get\s{0,2}\(|querystring\.parse\s{0,2}\(|new\s+URL\s{0,2}\([^;\n]{0,80}searchParams)/
        $module = /child_process|\bvm\b|\beval\b|express|node:http|require\s{0,2}\(\s{0,2}["']http["']/

    condition:
        filesize < 128KB and uint32be(0) != 0x7f454c46 and any of ($direct, $parsed) and $module
}

rule webshell_node_through_variable : webshell node
{
    meta:
        description = "Small JavaScript (Node) server that hands a visitor's value to a shell"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $server = /createServer\s{0,2}\(|\bapp\.(get|post|all|use|listen)\s{0,2}\(|\.listen\s{0,2}\(/
        $source = /(const|let|var)\s+[\w{},\s]{1,40}\s{0,2}=\s{0,2}[^;\n]{0,60}(\b(req|request|ctx)(\.request)?\.(query|body|params|headers|url)\b|url\.parse\s{0,2}\(|searchParams)/
        $module = /child_process["'`]/
        $run = /\b(exec|execSync)\s{0,4}\(\s{0,4}[a-zA-Z_]\w{0,20}(\.\w{1,16}){0,2}\s{0,2}[,)]|spawn(Sync)?\s{0,4}\(\s{0,4}["'`](\/bin\/)?(ba)?sh["'`]\s{0,2},\s{0,2}\[\s{0,2}["'`]-c["'`]\s{0,2},\s{0,2}[a-zA-Z_]/
        $answer = /\.(end|send|write|json)\s{0,2}\(/

    condition:
        filesize < 6KB and uint32be(0) != 0x7f454c46 and all of them
}
